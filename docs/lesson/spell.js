/** A number's account in words: first with names, then with numbers. */

import { label, shown } from "./format.js";

const coloured = (role, text) => (role ? `<span class="${role}">${text}</span>` : text);

/** Ways of making a number of its terms: how the written terms are put together. */
const FORMS = {
  sum: (terms) => terms.join(" + ") || "0",
  copy: (terms) => terms[0] ?? "0",
  mean: (terms) => `(${terms.join(" + ")}) / ${terms.length}`,
  max: (terms) => `max(${terms.join(", ")})`,
  winner: (terms) => `the tap that saw ${terms[0]}`,
  count: (terms) => `how many are these: ${terms.join(", ")}`,
  above: (terms) => `1 if ${terms[0]} &gt; 0, else 0`,
  quotient: ([term]) => term.replace(" · ", " / "),
  power: (terms) => `e<sup>${terms[0]} − max Z</sup>`,
  fraction: ([first, ...all]) => `${first} / (${all.join(" + ")})`,
  surprise: (terms) => `−log ${terms[0]}`,
  difference: (terms) => terms.join(" − "),
  positive: (terms) => `max(0, ${terms[0]})`,
  passed: ([gradient, y]) => `${gradient} if ${y} &gt; 0, else 0`,
};

/** A number among others: brackets around its sign. */
export function factor(value, digits) {
  const number = shown(value, digits);
  return number.startsWith("−") ? `(${number})` : number;
}

/** At most so many terms are also written with their names. */
const NAMED = 9;

/** What stands between an entry's name and its value. */
export function spelled(entry, { arrays, roles, digits }) {
  const written = (text) =>
    FORMS[entry.how](
      entry.terms.map(({ factors }) =>
        factors.map(([name, flat]) => coloured(roles[name], text(name, flat))).join(" · "),
      ),
    );
  const names = written((name, flat) => label(name, flat, arrays[name].shape));
  const numbers = written((name, flat) => factor(arrays[name].data[flat], digits));
  if (entry.terms.length === 0) return [numbers];
  return entry.terms.length > NAMED ? [numbers] : [names, numbers];
}
