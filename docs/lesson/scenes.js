/**
 * The scenes: what each one lets a reader touch, in the order of docs/equations.md.
 *
 * A scene has `sliders`; `shapes` of its inputs for their values; `compute`, which makes of
 * settings and inputs all arrays, the accounts of how they came about, and the steps of the
 * loop as jaxcnn runs it. `also` says what else belongs to an entry, and by which tap.
 * An input's `twin` is its gradient. `board` names the pixel whose windows are drawn first.
 */

import {
  averagePool,
  averagePoolGradient,
  biasGradient,
  forward,
  inputGradient,
  maxPool,
  maxPoolGradient,
  numberInside,
  outputSize,
  padded,
  positive,
  ravel,
  reach,
  relu,
  result,
  rotated,
  sizeOf,
  softmaxOf,
  spread,
  tabulate,
  times,
  unravel,
  weightGradient,
} from "./arrays.js";
import { network } from "./network.js";
import { panel, slider } from "./spec.js";
import {
  account,
  biasAccount,
  convolutionAccounts,
  eachFrom,
  meetings,
  softmaxAccounts,
} from "./sums.js";

const KERNEL = slider("Kernel size K", 1, 3, 2);

/** The window of a scene's settings; one that has no slider for a field leaves it out. */
export const windowOf = ({ kernel, stride = 1, padding = 0, dilation = 1 }) => ({
  kernel,
  stride,
  padding,
  dilation,
});

/** Steps of a sum: of which function of the code, and of which array. */
function* played(code, of, steps) {
  for (const step of steps) yield { code, of, ...step };
}

const PANELS = {
  X: panel("X", "the input", "x"),
  Xp: panel("Xp", "X with zeros around", "x"),
  W: panel("W", "the kernel", "w", { letters: (t) => t }),
  b: panel("b", "the bias", "w"),
  Y: panel("Y", "the output", "y"),
  dY: panel("dY", "the gradient that arrives", "y"),
  db: panel("db", "the bias gradient", "w"),
  dW: panel("dW", "the weight gradient", "w", { letters: (t) => t }),
  Wr: panel("Wr", "W turned by 180°", "w", { letters: (t, taps) => taps - 1 - t }),
  D: panel("D", "dY with zeros between and around", "y"),
  dX: panel("dX", "the input gradient", "x"),
};
const panels = (names) => names.split(" ").map((name) => PANELS[name]);

// --- Convolution --------------------------------------------------------------------------

/** Shapes of the inputs of a convolution of square images. */
const convolutionShapes =
  (size, channels = 1, bias = false) =>
  (settings) => {
    const out = outputSize(windowOf(settings), size);
    const { kernel, groups = 1 } = settings;
    return {
      X: [channels, size, size],
      W: [channels, channels / groups, kernel, kernel],
      ...(bias ? { b: [channels] } : {}),
      dY: [channels, out, out],
    };
  };

function convolution(settings, inputs) {
  const { X, W, b, dY } = inputs;
  const window = windowOf(settings);
  const { groups = 1 } = settings;
  const size = X.shape.slice(1);
  const Xp = padded(X, window.padding);
  const product = result(forward(X, W, window, groups));
  const arrays = {
    ...inputs,
    Xp,
    Y: b
      ? tabulate(
          product.shape,
          (o, i, j) => b.data[o] + product.data[ravel([o, i, j], product.shape)],
        )
      : product,
    dW: result(weightGradient(X, dY, window, groups)),
    dX: result(inputGradient(dY, W, window, size, groups)),
    Wr: rotated(W),
    D: spread(dY, window, size),
  };
  const from = window.padding ? ["Xp", Xp] : ["X", X];
  const accounts = {
    ...convolutionAccounts(inputs, window, groups, from),
    Xp: copies(
      Xp,
      X,
      ([c, k, l]) => [c, k - window.padding, l - window.padding],
      "X",
      "padding: a zero that is no part of X, and has no gradient",
    ),
    Wr: copies(
      W,
      W,
      ([o, c, m, n]) => [o, c, window.kernel - 1 - m, window.kernel - 1 - n],
      "W",
    ),
    D: spreadAccount(arrays.D, dY, window),
  };
  return { window, arrays, accounts, also: pixelAlso(arrays, window) };
}

/** The account of an array whose entries are copied from elsewhere, or are zero. */
function copies(made, source, where, name, note) {
  return account(made.shape, "copy").map((entry, flat) => {
    const from = ravel(where(unravel(flat, made.shape)), source.shape);
    if (from < 0) return { ...entry, empty: "around", note };
    return { ...entry, terms: [{ factors: [[name, from]] }] };
  });
}

function spreadAccount(D, dY, { stride, kernel, padding, dilation }) {
  const first = reach({ kernel, dilation }) - padding;
  return account(D.shape, "copy").map((entry, flat) => {
    const [o, ...at] = unravel(flat, D.shape);
    const steps = at.map((u) => (u - first) / stride);
    const from = ravel([o, ...steps], dY.shape);
    if (steps.every(Number.isInteger) && from >= 0) {
      return { ...entry, terms: [{ factors: [["dY", from]] }] };
    }
    const within = steps.every((i, axis) => i >= 0 && i <= dY.shape[axis + 1] - 1);
    return within
      ? {
          ...entry,
          empty: "between",
          note: `no window begins here: the stride of ${stride} jumps over it, so there is no output to ask`,
        }
      : {
          ...entry,
          empty: "around",
          note: "no window begins here: it would leave the input",
        };
  });
}

/** A pixel of dX belongs to a window of D, which the turned kernel lies on. */
const pixelAlso = ({ D, X, Wr }, { kernel, dilation }) => ({
  dX: (flat) => {
    const [, k, l] = unravel(flat, X.shape);
    const marks = [];
    for (let t = 0; t < kernel * kernel; t++) {
      const [r, c] = [Math.floor(t / kernel), t % kernel];
      const letter = kernel * kernel - 1 - t;
      marks.push({
        name: "D",
        flat: ravel([0, k + dilation * r, l + dilation * c], D.shape),
        tap: letter,
      });
      marks.push({ name: "Wr", flat: ravel([0, 0, r, c], Wr.shape), tap: letter });
    }
    return marks;
  },
});

const convolutionSteps = {
  *Y({ X, W }, window, groups) {
    yield* played("equations.forward", "Y", forward(X, W, window, groups));
  },
  *dW({ X, dY }, window, groups) {
    yield* played("equations.weight_gradient", "dW", weightGradient(X, dY, window, groups));
  },
  *dX({ X, W, dY }, window, groups) {
    const size = X.shape.slice(1);
    yield* played(
      "equations.input_gradient",
      "dX",
      inputGradient(dY, W, window, size, groups),
    );
  },
};

/** A scene about a convolution: which arrays it shows, and which of its sums it plays. */
function convolutionScene({ show, plays, size, channels, ...scene }) {
  return {
    shapes: convolutionShapes(size, channels),
    panels: panels(show),
    results: ["Y", "dW", "dX"].filter((name) => show.split(" ").includes(name)),
    ...scene,
    compute(settings, inputs) {
      const made = convolution(settings, inputs);
      const { groups = 1 } = settings;
      return {
        ...made,
        *steps() {
          for (const of of plays) {
            for (const step of convolutionSteps[of](made.arrays, made.window, groups)) {
              if (scene.code.includes(step.code)) yield step;
            }
          }
        },
      };
    },
  };
}

const IMAGE = [1, 2, 0, 1, 0, 1, 3, 1, 2, 0, 1, 0, 1, 1, 0, 2];
const ARRIVES = [1, 0, 2, 0, -1, 0, 3, 0, 1];
const SMALL = { X: IMAGE, W: [1, -1, 0, 2], dY: ARRIVES };

const convolutions = [
  {
    ...convolutionScene({
      id: "window",
      title: "The window slides",
      lead: `A small kernel W lies on the image X. What it covers is multiplied with it, number by
        number, and added up: one number of the output Y. Then it slides on. Each element of
        the kernel, a <em>tap</em>, has a letter here: a, b, c …`,
      aim: `Point at a number of Y: it shows what the window saw. Point at a number of X: it shows
        which outputs it went into, and through which weight.`,
      sliders: { kernel: KERNEL },
      size: 4,
      show: "X W b Y",
      plays: ["Y"],
      formulas: ["Y_{i,j} = b + Σ_{m,n} | W_{m,n} · X_{i+m,j+n}"],
      code: ["equations.forward"],
      start: ["Y", 1],
    }),
    shapes: convolutionShapes(4, 1, true),
    defaults: { ...SMALL, b: [0] },
  },
  {
    id: "bias",
    title: "The bias gradient",
    lead: `Somewhere behind Y there is a loss L. From there a gradient arrives, dY: how much L grows
      with each number of Y. The convolution must pass it on. The bias is easiest: it stands in
      every output once, so it collects from all of them.`,
    aim: "Point at db. Then change a number of dY: only its own channel's db follows.",
    sliders: {
      channels: slider("Output channels", 1, 3, 2),
      size: slider("Output size", 1, 4, 3),
    },
    shapes: ({ channels, size }) => ({ b: [channels], dY: [channels, size, size] }),
    defaults: { dY: [...ARRIVES, 2, 1, 0, 0, -2, 1, 1, 0, 0], b: [0, 1] },
    panels: panels("b dY db"),
    results: ["db"],
    formulas: ["db_{o} = Σ_{i,j} dY_{o,i,j}"],
    code: ["equations.bias_gradient"],
    start: ["db", 0],
    twins: { b: "db" },
    compute(_, inputs) {
      const { b, dY } = inputs;
      return {
        arrays: { ...inputs, db: biasGradient(dY) },
        accounts: { db: biasAccount(b, dY) },
        *steps() {
          const perChannel = sizeOf(dY.shape.slice(1));
          for (let count = 1; count <= perChannel; count++) {
            const so = tabulate(dY.shape, (...at) => {
              const flat = ravel(at, dY.shape);
              return flat % perChannel < count ? dY.data[flat] : 0;
            });
            const marks = b.data.length;
            yield {
              code: "equations.bias_gradient",
              line: "jnp.sum(",
              says: `${count} of ${perChannel} positions added`,
              marks: Array.from({ length: marks }, (_each, c) => ({
                name: "dY",
                flat: c * perChannel + count - 1,
              })),
              so: { db: biasGradient(so) },
            };
          }
        },
      };
    },
  },
  convolutionScene({
    id: "weights",
    title: "The weight gradient",
    lead: `One weight was used at every position. While the window slid, it saw a whole block of
      the input, and what it saw there was multiplied by it into Y. So its gradient is that block
      times dY, added up: the input, correlated with the gradient that arrives.`,
    aim: "Point at the numbers of dW, one after the other: the block of X moves with the weight.",
    sliders: { kernel: KERNEL },
    size: 4,
    defaults: SMALL,
    show: "X dY W dW",
    plays: ["dW"],
    formulas: ["dW_{m,n} = Σ_{i,j} | dY_{i,j} · X_{i+m,j+n}"],
    code: ["equations.weight_gradient"],
    start: ["dW", 1],
    twins: { W: "dW" },
  }),
  convolutionScene({
    id: "input",
    title: "The input gradient: why the kernel is turned",
    lead: `A pixel of X went into several outputs, each time through another weight. It collects
      from these outputs: each one's dY times the weight that was between. The windows that saw the
      pixel are drawn below, in the order in which they begin. The window that begins
      <em>furthest before</em> the pixel met it with its <em>last</em> weight, the one that begins
      <em>at</em> the pixel with its <em>first</em>. So the letters stand there backwards.`,
    aim: `Point at a pixel of dX or X. Read the letters in dY, and those on the turned kernel.`,
    moral: `<strong>Why is the kernel turned?</strong> Looking from an output, tap m is m steps
      <em>ahead</em>: X[i + m]. Looking back from the pixel, the output that used tap m is m steps
      <em>behind</em>: dY[k − m]. Ahead becomes behind, in both directions: that is a turn by 180°.
      And so dX is a convolution itself: put zeros around dY, and slide the turned kernel over it.`,
    sliders: { kernel: KERNEL },
    size: 4,
    defaults: SMALL,
    show: "X W dY dX Wr D",
    plays: ["dX"],
    formulas: ["dX_{k,l} = Σ_{m,n} | dY_{k−m,l−n} · W_{m,n}"],
    code: ["equations.input_gradient"],
    start: ["dX", 5],
    twins: { X: "dX" },
    board: [0, 0],
  }),
  convolutionScene({
    id: "stride",
    title: "Stride: where the zeros come from",
    lead: `With a stride of 2 the window jumps: it begins at every other place only. A pixel looks
      back for all the windows that could have met it; but those that would begin at a place that was
      jumped over do not exist. There is no output, and no gradient to collect: 0.`,
    aim: `Set the stride to 1, 2, 3 and look at the windows below, and at the zeros in D. Then walk
      along a row of dX: the same few weights come again, s pixels further.`,
    moral: `<strong>Where do the zeros come from?</strong> i = (k + p − m)/s is a whole number for one
      place in s only. Between two outputs lie s − 1 places where no window begins; the turned kernel
      slides over these, too, and finds zeros. The code never asks: <code>untap</code> puts an entry
      back where it was read, and what was never read is never written.`,
    sliders: { kernel: { ...KERNEL, value: 3 }, stride: slider("Stride s", 1, 3, 2) },
    size: 7,
    show: "X W Y dY D Wr dX dW",
    plays: ["dX"],
    formulas: [
      "dX_{k,l} = Σ_{m,n} | dY_{i,j} · W_{m,n} | with i = ( k − m ) / s , | j = ( l − n ) / s | where both are whole",
    ],
    code: ["equations.input_gradient", "window.untap"],
    start: ["dX", 16],
    twins: { X: "dX" },
    board: [0, 0],
  }),
  convolutionScene({
    id: "padding",
    title: "Padding",
    lead: `Zeros around the image let the window begin before it and end after it. Forward they
      are multiplied like any number. Backward their gradient is cut off: they are no part of X.`,
    aim: `Change the padding: with K = 3 and p = 1, Y is as large as X. Point at the first number of
      Y, then of dX: a pixel at the edge now was seen as often as any other.`,
    sliders: { kernel: { ...KERNEL, value: 3 }, padding: slider("Padding p", 0, 2, 1) },
    size: 4,
    defaults: { X: IMAGE },
    show: "X Xp W Y dY dX dW",
    plays: ["Y", "dX"],
    formulas: [
      "Y_{i,j} = Σ_{m,n} | W_{m,n} · X_{i+m−p,j+n−p}",
      "dX_{k,l} = Σ_{m,n} | dY_{k+p−m,l+p−n} · W_{m,n}",
    ],
    code: ["equations.forward", "equations.input_gradient"],
    start: ["Y", 0],
    twins: { X: "dX" },
    board: [1, 1],
  }),
  convolutionScene({
    id: "dilation",
    title: "Dilation",
    lead: `A dilation of d pulls the taps apart: d pixels from one to the next. The window sees
      further with the same few weights. The gradient goes back by the same steps.`,
    aim: "Point at a number of Y and raise d. Then at one of dX: what it collects lies d apart, too.",
    sliders: { kernel: { ...KERNEL, value: 3 }, dilation: slider("Dilation d", 1, 3, 2) },
    size: 7,
    show: "X W Y dY dX dW",
    plays: ["Y", "dX"],
    formulas: [
      "Y_{i,j} = Σ_{m,n} | W_{m,n} · X_{i+d·m,j+d·n}",
      "dX_{k,l} = Σ_{m,n} | dY_{k−d·m,l−d·n} · W_{m,n}",
    ],
    code: ["equations.forward", "equations.input_gradient"],
    start: ["Y", 4],
    board: [2, 2],
  }),
  convolutionScene({
    id: "groups",
    title: "Channels and groups",
    lead: `A real image has channels. Each output channel o has a kernel for every input channel c,
      and adds them all up. With G groups the channels are dealt out: an output channel sees only
      the input channels of its own group. With as many groups as channels, each sees one.`,
    aim: `Point at a number of Y with G = 1, 2, 4, and count its products. Then at one of dX: it
      collects from the output channels of its group.`,
    sliders: {
      kernel: { ...KERNEL, to: 2 },
      groups: { label: "Groups G", values: [1, 2, 4], value: 2 },
    },
    size: 3,
    channels: 4,
    show: "X W Y dY dX dW",
    plays: ["Y", "dW", "dX"],
    formulas: [
      "Y_{o,i,j} = Σ_{c} Σ_{m,n} | W_{o,c,m,n} · X_{c,i+m,j+n}",
      "dX_{c,k,l} = Σ_{o} Σ_{m,n} | dY_{o,k−m,l−n} · W_{o,c,m,n}",
    ],
    code: ["equations.forward", "equations.weight_gradient", "equations.input_gradient"],
    start: ["Y", 0],
  }),
];

// --- Pooling and layers -------------------------------------------------------------------

const POOLED = {
  kernel: KERNEL,
  stride: slider("Stride s", 1, 3, 2),
  padding: slider("Padding p", 0, 1, 0),
};

/** No window of a pool lies in the padding alone. */
const poolLimits = ({ kernel }) => ({ padding: Math.min(1, kernel - 1) });

const poolShapes = (settings) => {
  const out = outputSize(windowOf(settings), 4);
  return { X: [1, 4, 4], dY: [1, out, out] };
};

/** The account of a pool's output: which inputs its window sees. */
function seenAccount(X, dY, window, how) {
  const Y = account(dY.shape, how);
  for (const { x, y, t } of meetings(window, X, null, 1)) {
    Y[y].terms.push({ tap: t, factors: [["X", x]] });
  }
  return Y;
}

const pools = [
  {
    id: "relu",
    title: "ReLU’s mask",
    lead: `ReLU lets through what is positive and makes the rest 0. Backward the same mask decides: where
      the input was positive the gradient passes, elsewhere it is lost. At 0 itself there is no
      derivative; it is taken to be 0.`,
    aim: "Change a number of X from positive to negative, and to 0: watch the mask and dX.",
    sliders: { size: slider("Image size", 1, 5, 4) },
    shapes: ({ size }) => ({ X: [1, size, size], dY: [1, size, size] }),
    defaults: { X: [1, -2, 0, 3, -1, 2, -3, 1, 2, 0, -1, 4, -2, 1, 3, -1] },
    panels: [
      ...panels("X Y dY"),
      panel("mask", "1 where X > 0", "x"),
      panel("dX", "the input gradient", "x"),
    ],
    results: ["Y", "dX"],
    formulas: ["Y = max ( 0 , X )", "dX = dY · [ X > 0 ]"],
    code: ["layers.activations._relu", "layers.activations._relu_gradient"],
    start: ["dX", 3],
    twins: { X: "dX" },
    compute(_, inputs) {
      const { X, dY } = inputs;
      const [Y, mask] = [relu(X), positive(X)];
      const dX = times(dY, mask);
      return {
        arrays: { ...inputs, Y, mask, dX },
        accounts: {
          Y: eachFrom(X.shape, "mask", "X"),
          mask: eachFrom(X.shape, "X").map((entry) => ({
            ...entry,
            how: "above",
            value: ({ X }) => Number(X.data[entry.terms[0].factors[0][1]] > 0),
          })),
          dX: eachFrom(X.shape, "dY", "mask"),
        },
        *steps() {
          const none = tabulate(X.shape, () => Number.NaN);
          const [code, back] = [
            "layers.activations._relu",
            "layers.activations._relu_gradient",
          ];
          yield { code, line: "jnp.where(", says: "forward", of: "Y", so: { Y, dX: none } };
          yield { code: back, line: "jnp.where(", says: "backward", of: "dX", so: { dX } };
        },
      };
    },
  },
  {
    id: "maximum",
    title: "Max pooling: winners and ties",
    lead: `Of what the window sees, the largest number is kept, and which tap saw it: the winner.
      The whole gradient goes back to the winner’s place; the others had no part in it. Of equal
      numbers the first wins, read row by row. Where windows overlap, a pixel that wins twice
      receives twice.`,
    aim: `Point at a winner: where does its gradient go? Make all four numbers of a window equal.
      Then set the stride to 1.`,
    sliders: POOLED,
    limits: poolLimits,
    shapes: poolShapes,
    defaults: { X: [1, 5, 2, 0, 3, 4, 1, 6, 7, 0, 2, 8, 1, 2, 8, 3], dY: [1, 2, 3, 4] },
    panels: [
      ...panels("X Y"),
      panel("winner", "the number of the tap that won", "w"),
      ...panels("dY dX"),
    ],
    results: ["Y", "winner", "dX"],
    formulas: [
      "Y_{i,j} = max_{m,n} | X_{s·i+m−p,s·j+n−p}",
      "dX_{k,l} = Σ_{m,n} | dY_{i,j} · [ winner_{i,j} = (m,n) ]",
    ],
    code: ["equations.max_pool", "equations.max_pool_gradient"],
    start: ["winner", 3],
    twins: { X: "dX" },
    compute(settings, inputs) {
      const { X, dY } = inputs;
      const window = windowOf(settings);
      const { Y, winner } = result(maxPool(X, window));
      const dX = result(maxPoolGradient(dY, winner, window, X.shape.slice(1)));
      const seen = seenAccount(X, dY, window, "max");
      const back = account(X.shape);
      const winners = account(dY.shape).map((entry, y) => {
        const won = seen[y].terms.find((term) => term.tap === winner.data[y]);
        const place = won.factors[0];
        back[place[1]].terms.push({ tap: won.tap, factors: [["dY", y]] });
        const best = seen[y].terms.filter(
          ({ factors: [[, x]] }) => X.data[x] === Y.data[y],
        );
        seen[y].note =
          seen[y].terms.length && best.length > 1
            ? `${best.length} are equal: the first, row by row, wins`
            : undefined;
        return {
          ...entry,
          how: "winner",
          terms: [won],
          value: () => won.tap,
          note: seen[y].note,
          at: place[1],
        };
      });
      return {
        window,
        arrays: { ...inputs, Y, winner, dX },
        accounts: { Y: seen, winner: winners, dX: back },
        also: {
          winner: (y) => [
            { name: "dY", flat: y },
            { name: "Y", flat: y },
            { name: "dX", flat: winners[y].at, tap: winners[y].terms[0].tap },
          ],
          dY: (y) => [
            { name: "winner", flat: y },
            { name: "X", flat: winners[y].at, tap: winners[y].terms[0].tap },
          ],
        },
        *steps() {
          yield* played("equations.max_pool", "Y", maxPool(X, window));
          const size = X.shape.slice(1);
          yield* played(
            "equations.max_pool_gradient",
            "dX",
            maxPoolGradient(dY, winner, window, size),
          );
        },
      };
    },
  },
  {
    id: "average",
    title: "Average pooling",
    lead: `The average of what the window sees. Each of the n numbers had the same part in it, so
      each receives the same share of the gradient: dY / n. Here padding does not count, so at the
      edge n is smaller.`,
    aim: "Point at a number of dX: it collects a share from every window that saw it. Set s = 1, p = 1.",
    sliders: POOLED,
    limits: poolLimits,
    shapes: poolShapes,
    defaults: { X: [1, 5, 2, 0, 3, 4, 1, 6, 7, 0, 2, 8, 1, 2, 8, 3], dY: [1, 2, 3, 4] },
    panels: [
      ...panels("X Y"),
      panel("n", "how many pixels the window sees", "y"),
      ...panels("dY"),
      panel("share", "dY / n", "y"),
      ...panels("dX"),
    ],
    results: ["Y", "share", "dX"],
    formulas: [
      "Y_{i,j} = Σ_{m,n} | X_{s·i+m−p,s·j+n−p} / n_{i,j}",
      "dX_{k,l} = Σ_{m,n} | dY_{i,j} / n_{i,j}",
    ],
    code: ["equations.average_pool", "equations.average_pool_gradient"],
    start: ["Y", 1],
    twins: { X: "dX" },
    compute(settings, inputs) {
      const { X, dY } = inputs;
      const window = windowOf(settings);
      const n = numberInside(X, window);
      const share = tabulate(n.shape, (...at) => {
        const flat = ravel(at, n.shape);
        return dY.data[flat] / n.data[flat];
      });
      const size = X.shape.slice(1);
      const Y = seenAccount(X, dY, window, "mean");
      const dX = account(X.shape);
      for (const { x, y, t } of meetings(window, X, null, 1)) {
        dX[x].terms.push({ tap: t, factors: [["share", y]] });
      }
      return {
        window,
        arrays: {
          ...inputs,
          n,
          share,
          Y: result(averagePool(X, n, window)),
          dX: result(averagePoolGradient(dY, n, window, size)),
        },
        accounts: {
          Y,
          n: Y.map(({ terms }) => ({
            how: "count",
            terms,
            value: () => terms.length,
          })),
          share: eachFrom(n.shape, "dY", "n").map((entry, y) => ({
            ...entry,
            how: "quotient",
            value: ({ dY, n }) => dY.data[y] / n.data[y],
          })),
          dX,
        },
        *steps() {
          yield* played("equations.average_pool", "Y", averagePool(X, n, window));
          const back = averagePoolGradient(dY, n, window, size);
          yield* played("equations.average_pool_gradient", "dX", back);
        },
      };
    },
  },
  {
    id: "softmax",
    title: "Softmax and its loss: P − T",
    lead: `The last layer gives a number for each class, Z. Softmax makes probabilities P of them:
      powers of e, divided by their sum. T is right: 1 for the label, 0 elsewhere. The loss is
      the surprise, −log of the probability of the label. And its gradient is the simplest of
      all: what the network says, minus what is right.`,
    aim: `Change Z until the loss is near 0: dZ goes to 0 with it. The numbers of dZ always add up
      to 0.`,
    sliders: { classes: slider("Classes", 2, 6, 4), label: slider("Label t", 0, 5, 1) },
    limits: ({ classes }) => ({ label: classes - 1 }),
    shapes: ({ classes }) => ({ Z: [classes] }),
    defaults: { Z: [1, 2, 0, -1] },
    panels: [
      panel("Z", "what the network says", "y"),
      panel("E", "e to the power Z, less the largest", "y"),
      panel("P", "probabilities", "y"),
      panel("T", "what is right", "w"),
      panel("L", "the loss", "w"),
      panel("dZ", "the gradient", "y"),
    ],
    results: ["P", "L", "dZ"],
    formulas: ["P_{k} = e_{k} / Σ_{c} e_{c}", "L = − log P_{t}", "dZ = P − T"],
    code: ["layers.softmax._softmax", "layers.losses._less_targets"],
    start: ["dZ", 1],
    twins: { Z: "dZ" },
    compute({ label, classes }, inputs) {
      const { Z } = inputs;
      const arrays = { ...inputs, ...softmaxOf(Z, label) };
      const { E, P, dZ } = arrays;
      return {
        arrays,
        accounts: softmaxAccounts(Z.shape, label),
        *steps() {
          const [code, back] = ["layers.softmax._softmax", "layers.losses._less_targets"];
          const none = tabulate([classes], () => Number.NaN);
          yield { code, line: "e = jnp.exp(", of: "E", so: { E, P: none, dZ: none } };
          yield { code, line: "return e / jnp.sum(", of: "P", so: { P, dZ: none } };
          yield { code: back, line: "is_label = ", of: "T", so: { dZ: none } };
          yield { code: back, line: "less_targets = softmax(", of: "dZ", so: { dZ } };
        },
      };
    },
  },
];

export const scenes = [...convolutions, ...pools, network];
