/**
 * Seen from a pixel: the windows that met it, each where it begins.
 *
 * One small picture for each tap, in the order in which their windows begin. So the taps
 * stand in it backwards; and where the stride jumped over the beginning there is no window.
 */

import { ravel, reach } from "./arrays.js";
import { label } from "./format.js";
import { element } from "./panel.js";
import { factor } from "./spell.js";
import { LETTERS } from "./sums.js";

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const square = (k, l, size, kind) =>
  shape("rect", { x: l, y: k, width: size, height: size, class: kind });

/** The image, the window that would begin at (top, left), and the pixel in it. */
function drawing(size, window, [top, left], [k, l], exists) {
  const far = reach(window);
  const svg = shape("svg", {
    viewBox: `${-far - 0.2} ${-far - 0.2} ${size + 2 * far + 0.4} ${size + 2 * far + 0.4}`,
    "aria-hidden": "true",
  });
  svg.append(square(0, 0, size, "image"));
  for (let line = 1; line < size; line++) {
    svg.append(shape("path", { d: `M${line} 0V${size}M0 ${line}H${size}`, class: "line" }));
  }
  svg.append(square(top, left, far + 1, exists ? "window" : "window missing"));
  if (exists) {
    for (let m = 0; m <= far; m += window.dilation) {
      for (let n = 0; n <= far; n += window.dilation) {
        svg.append(square(top + m, left + n, 1, "tap"));
      }
    }
  }
  svg.append(square(k, l, 1, "pixel"));
  return svg;
}

/** Where the window of tap (m, n) over the pixel begins: the output, or why there is none. */
function outputOf([m, n], [k, l], window, dY) {
  const steps = [
    k + window.padding - window.dilation * m,
    l + window.padding - window.dilation * n,
  ];
  if (steps.some((each) => each % window.stride !== 0)) return { why: "jumped over" };
  const y = ravel([0, ...steps.map((each) => each / window.stride)], dY.shape);
  return y < 0 ? { why: "beyond the edge" } : { y };
}

export function board({ arrays, window, digits }, [k, l]) {
  const { X, W, dY } = arrays;
  const { kernel, dilation } = window;
  const tiles = [];
  let met = 0;
  for (let m = kernel - 1; m >= 0; m--) {
    for (let n = kernel - 1; n >= 0; n--) {
      const tap = m * kernel + n;
      const { y, why } = outputOf([m, n], [k, l], window, dY);
      const exists = why === undefined;
      met += exists;
      const begins = [k - dilation * m, l - dilation * n];
      const letter = element("b", { class: "w" }, LETTERS[tap]);
      const says = exists
        ? `${factor(dY.data[y], digits)} · ${factor(W.data[tap], digits)}`
        : `0: ${why}`;
      const where = exists ? label("dY", y, dY.shape) : "no window";
      tiles.push(
        element(
          "li",
          { class: exists ? "" : "missing" },
          drawing(X.shape[1], window, begins, [k, l], exists),
          element("span", {}, letter, ` ${where}`),
          element("span", {}, says),
        ),
      );
    }
  }
  const list = element("ol", {}, ...tiles);
  list.style.setProperty("--columns", kernel);
  const count = met === tiles.length ? `All ${met}` : `${met} of ${tiles.length}`;
  const heading = element("h3", {}, `Seen from pixel (${k}, ${l})`);
  const summary = element(
    "p",
    {},
    `${count} windows met it, drawn in the order in which they begin. The letter is the weight that lay on the pixel.`,
  );
  return [heading, summary, list];
}
