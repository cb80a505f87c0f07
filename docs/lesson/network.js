/** The last scene: a tiny network on scanned digits, one step of gradient descent at a time. */

import {
  add,
  array,
  biasGradient,
  dense,
  denseInputGradient,
  forward,
  inputGradient,
  maxPool,
  maxPoolGradient,
  outer,
  positive,
  relu,
  result,
  softmaxOf,
  tabulate,
  times,
  weightGradient,
} from "./arrays.js";
import { facts } from "./facts.js";
import { panel, slider } from "./spec.js";
import {
  account,
  biasAccount,
  convolutionAccounts,
  eachFrom,
  meetings,
  softmaxAccounts,
} from "./sums.js";

const { classes, learned, unseen } = facts.digits;
const CONVOLUTION = { kernel: 3, stride: 2, padding: 1, dilation: 1 };
const POOL = { kernel: 2, stride: 2, padding: 0, dilation: 1 };
const PARAMETERS = ["W", "b", "V", "c"];

/** The pixels of a digit, 0 to 16 in the data, as numbers from 0 to 1. */
export const imageOf = ({ pixels }) =>
  array(
    [1, 8, 8],
    pixels.map((each) => each / 16),
  );

/** What the network computes of one image, up to what it says of it. */
function said({ X, W, b, V, c }) {
  const product = result(forward(X, W, CONVOLUTION, 1));
  const [, height, width] = product.shape;
  const Y = tabulate(product.shape, (o, i, j) => {
    return b.data[o] + product.data[(o * height + i) * width + j];
  });
  const R = relu(Y);
  const { Y: M, winner } = result(maxPool(R, POOL));
  return { Y, R, M, winner, Z: dense(M, V, c) };
}

/** All of its numbers, forward and backward. */
function computed(inputs, label) {
  const { X, W, V } = inputs;
  const { Y, R, M, winner, Z } = said(inputs);
  const after = softmaxOf(Z, label);
  const { dZ } = after;
  const dM = { ...denseInputGradient(dZ, V), shape: M.shape };
  const dR = result(maxPoolGradient(dM, winner, POOL, R.shape.slice(1)));
  const dY = times(dR, positive(Y));
  return {
    ...{ ...inputs, Y, R, M, winner, Z, ...after },
    ...{ dc: dZ, dV: outer(M, dZ), dM, dR, dY, db: biasGradient(dY) },
    dW: result(weightGradient(X, dY, CONVOLUTION, 1)),
    dX: result(inputGradient(dY, W, CONVOLUTION, [8, 8], 1)),
  };
}

/** How each of these numbers came about. */
function accountsOf(arrays, label) {
  const { X, W, b, Y, R, M, Z, dY } = arrays;
  const accountOfM = account(M.shape, "max");
  const dR = account(R.shape);
  for (const { x, y, t } of meetings(POOL, R, null, 1)) {
    accountOfM[y].terms.push({ tap: t, factors: [["R", x]] });
    if (arrays.winner.data[y] === t) dR[x].terms.push({ tap: t, factors: [["dM", y]] });
  }
  const rows = Array.from(M.data.keys());
  const columns = Array.from(Z.data.keys());
  return {
    ...convolutionAccounts({ X, W, b, dY }, CONVOLUTION, 1),
    ...softmaxAccounts(Z.shape, label),
    R: eachFrom(Y.shape, "Y").map((entry, y) => ({
      ...entry,
      how: "positive",
      value: ({ Y }) => Math.max(0, Y.data[y]),
    })),
    M: accountOfM,
    Z: columns.map((o) => ({
      how: "sum",
      terms: [
        { factors: [["c", o]] },
        ...rows.map((k) => ({
          factors: [
            ["M", k],
            ["V", k * columns.length + o],
          ],
        })),
      ],
    })),
    dc: eachFrom(Z.shape, "dZ"),
    dV: rows.flatMap((k) =>
      columns.map((o) => ({
        how: "sum",
        terms: [
          {
            factors: [
              ["M", k],
              ["dZ", o],
            ],
          },
        ],
      })),
    ),
    dM: rows.map((k) => ({
      how: "sum",
      terms: columns.map((o) => ({
        factors: [
          ["dZ", o],
          ["V", k * columns.length + o],
        ],
      })),
    })),
    dR,
    dY: Array.from(dY.data.keys(), (y) => ({
      how: "passed",
      terms: [{ factors: [["dR", y]] }, { factors: [["Y", y]] }],
      value: ({ dR, Y }) => (Y.data[y] > 0 ? dR.data[y] : 0),
    })),
    db: biasAccount(b, dY),
  };
}

/** The class that the network gives to a digit. */
export function named(parameters, digit) {
  const { Z } = said({ ...parameters, X: imageOf(digit) });
  return Z.data.indexOf(Math.max(...Z.data));
}

export const network = {
  id: "network",
  title: "A whole network learns",
  lead: `Scanned digits, a convolution with a stride of 2, ReLU, max pooling, one dense layer,
    softmax: 47 weights, and all of its numbers are here. A step computes the loss of one digit,
    every gradient by the sums above, and moves each weight a little against its own. Then the
    next digit.`,
  aim: `Take a few single steps and watch one weight. Then let it run until it names every digit.
    Point at any number: it is one of the sums of this page.`,
  classes,
  learned,
  unseen,
  digits: 3,
  sliders: {
    picture: slider("Digit", 0, learned.length - 1, 0),
    rate: { label: "Rate λ", values: [0.02, 0.05, 0.1, 0.2], value: 0.1 },
  },
  shapes: () => ({
    X: [1, 8, 8],
    W: [2, 1, 3, 3],
    b: [2],
    V: [8, classes.length],
    c: [classes.length],
  }),
  /** The image follows the digit that is chosen; weights stay. */
  follows: { X: ({ picture }) => imageOf(learned[picture]) },
  defaults: facts.weights,
  panels: [
    panel("X", "the digit", "x", { tone: true }),
    panel("W", "the kernels", "w"),
    panel("b", "their biases", "w"),
    panel("Y", "convolution", "y"),
    panel("R", "ReLU", "y"),
    panel("M", "max pooling", "y"),
    panel("V", "dense weights", "w"),
    panel("c", "their biases", "w"),
    panel("Z", "what it says", "y"),
    panel("E", "powers of e", "y"),
    panel("P", "probabilities", "y"),
    panel("T", "what is right", "w"),
    panel("L", "the loss", "w"),
    panel("dZ", "P − T", "y"),
    panel("dc", "", "w"),
    panel("dV", "", "w"),
    panel("dM", "", "y"),
    panel("dR", "to the winners", "y"),
    panel("dY", "through the mask", "y"),
    panel("db", "", "w"),
    panel("dW", "", "w"),
    panel("dX", "what the digit could change", "x"),
  ],
  results: ["Y", "Z", "P", "L", "dM", "dW"],
  formulas: ["W ← W − λ · dW", "V ← V − λ · dV"],
  code: ["lesson.logits", "lesson.step"],
  start: ["dW", 3],
  twins: { W: "dW", b: "db", V: "dV", c: "dc", X: "dX" },
  compute({ picture }, inputs) {
    const { label } = learned[picture];
    const arrays = computed(inputs, label);
    return { arrays, accounts: accountsOf(arrays, label), also: {} };
  },
  /** One step down the loss of the digit in view; then the next digit. */
  after({ inputs, settings }) {
    const arrays = computed(inputs, learned[settings.picture].label);
    const moved = (name) => add(arrays[name], scaled(arrays[`d${name}`], -settings.rate));
    const picture = (settings.picture + 1) % learned.length;
    return {
      settings: { ...settings, picture },
      inputs: {
        X: imageOf(learned[picture]),
        ...Object.fromEntries(PARAMETERS.map((name) => [name, moved(name)])),
      },
    };
  },
};

const scaled = (x, factor) =>
  array(
    x.shape,
    x.data.map((each) => factor * each),
  );
