/**
 * How each number of a scene came about: which numbers were multiplied, at which tap.
 *
 * An account has one entry for each number of an array: `how` it is made ("sum", "mean",
 * "max", "copy", or a function that spells it) of its `terms`. A term has `factors`, each an
 * array's name and an entry's place, and the number of its `tap`. Whatever is pointed at
 * is found here, and what is spelled is made from here, not from the arrays of results.
 */

import { firstOfGroup, outputSize, place, ravel, sizeOf, taps } from "./arrays.js";

export const LETTERS = "abcdefghi";

/** An account of an array whose entries have no terms yet. */
export const account = (shape, how = "sum") =>
  Array.from({ length: sizeOf(shape) }, () => ({ how, terms: [] }));

/** An account of an array each of whose entries comes from the same entry of others. */
export const eachFrom = (shape, ...names) =>
  account(shape).map((entry, flat) => ({
    ...entry,
    terms: [{ factors: names.map((name) => [name, flat]) }],
  }));

/** Which entries of X, W and Y meet: all the products of a convolution, or of a pooling. */
export function* meetings(window, X, W, groups) {
  const [height, width] = [1, 2].map((axis) => outputSize(window, X.shape[axis]));
  const Y = [W ? W.shape[0] : X.shape[0], height, width];
  for (let y = 0; y < sizeOf(Y); y++) {
    const o = Math.floor(y / (height * width));
    const i = Math.floor(y / width) % height;
    const j = y % width;
    for (let c = 0; c < (W ? W.shape[1] : 1); c++) {
      for (const [t, [m, n]] of taps(window).entries()) {
        const channel = W ? firstOfGroup(o, W, groups) + c : o;
        const x = ravel([channel, place(i, m, window), place(j, n, window)], X.shape);
        if (x >= 0) yield { x, w: W ? ravel([o, c, m, n], W.shape) : t, y, t };
      }
    }
  }
}

/** The accounts of Y, dW and dX. `seen` names the input: X, or X with zeros around. */
export function convolutionAccounts({ X, W, dY, b }, window, groups, from = ["X", X]) {
  const [seen, input] = from;
  const bare = seen === "X" ? window : { ...window, padding: 0 };
  const Y = account(dY.shape);
  if (b) {
    const perChannel = dY.data.length / b.data.length;
    for (const [y, entry] of Y.entries()) {
      entry.terms.push({ factors: [["b", Math.floor(y / perChannel)]] });
    }
  }
  const dW = account(W.shape);
  for (const { x, w, y, t } of meetings(bare, input, W, groups)) {
    Y[y].terms.push({
      tap: t,
      factors: [
        [seen, x],
        ["W", w],
      ],
    });
    dW[w].terms.push({
      tap: t,
      factors: [
        [seen, x],
        ["dY", y],
      ],
    });
  }
  return { Y, dW, dX: inputAccount(X, W, window, groups) };
}

export function inputAccount(X, W, window, groups, dY = "dY", weights = "W") {
  const dX = account(X.shape);
  for (const { x, w, y, t } of meetings(window, X, W, groups)) {
    dX[x].terms.push({
      tap: t,
      factors: [
        [dY, y],
        [weights, w],
      ],
    });
  }
  return dX;
}

export function biasAccount(b, dY, name = "dY") {
  const db = account(b.shape);
  const perChannel = dY.data.length / b.data.length;
  for (let y = 0; y < dY.data.length; y++) {
    db[Math.floor(y / perChannel)].terms.push({ factors: [[name, y]] });
  }
  return db;
}

/** The numbers of a term, and their product. */
export const numbersOf = (term, arrays) =>
  term.factors.map(([name, flat]) => arrays[name].data[flat]);

const product = (numbers) => numbers.reduce((all, each) => all * each, 1);

/** The number that an entry's terms make. */
export function valueFrom(entry, arrays) {
  const values = entry.terms.map((term) => product(numbersOf(term, arrays)));
  if (entry.value) return entry.value(arrays);
  if (entry.how === "max") return Math.max(Number.NEGATIVE_INFINITY, ...values);
  const sum = values.reduce((all, each) => all + each, 0);
  return entry.how === "mean" ? sum / values.length : sum;
}

/** The accounts of softmax, its loss and its gradient. */
export function softmaxAccounts(shape, label) {
  const all = Array.from({ length: sizeOf(shape) }, (_, k) => k);
  return {
    E: eachFrom(shape, "Z").map((entry, k) => ({
      ...entry,
      how: "power",
      value: ({ Z }) => Math.exp(Z.data[k] - Math.max(...Z.data)),
    })),
    P: all.map((k) => ({
      how: "fraction",
      terms: [k, ...all].map((each) => ({ factors: [["E", each]] })),
      value: ({ E }) => E.data[k] / E.data.reduce((sum, e) => sum + e, 0),
    })),
    L: [
      {
        how: "surprise",
        terms: [{ factors: [["P", label]] }],
        value: ({ P }) => -Math.log(P.data[label]),
      },
    ],
    dZ: all.map((k) => ({
      how: "difference",
      terms: [{ factors: [["P", k]] }, { factors: [["T", k]] }],
      value: ({ P, T }) => P.data[k] - T.data[k],
    })),
  };
}
