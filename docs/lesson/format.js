/** Numbers and names, as the page writes and reads them. */

import { unravel } from "./arrays.js";

/** At most so many digits after the point, and no more than needed. */
export function shown(value, digits = 2) {
  if (Number.isNaN(value)) return "·";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const text = value.toFixed(digits).replace(/\.?0+$/, digits ? "" : "$&");
  return text === "-0" ? "0" : text.replace("-", "−");
}

/** The number that somebody typed, or null: from −99 to 99, with two digits after the point. */
export function typed(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".");
  if (!/^[+-]?(\d+\.?\d*|\.\d+)$/.test(plain)) return null;
  const value = Math.round(Number(plain) * 100) / 100;
  return Math.abs(value) <= 99 ? value + 0 : null;
}

/** X[1,2]: axes of length 1 before the last two are left out. */
export function label(name, flat, shape) {
  const indices = unravel(flat, shape);
  const first = shape.findIndex((length, axis) => length > 1 || axis >= shape.length - 2);
  if (shape.length === 1) return shape[0] === 1 ? name : `${name}[${indices[0]}]`;
  return `${name}[${indices.slice(first).join(",")}]`;
}
