/**
 * Small arrays, and the sums of jaxcnn/equations.py over them, tap by tap.
 *
 * A sum is a generator. After each line that equations.py runs it yields that line, the
 * tap, what the line made (`aside`) and the sum so far (`so`); it returns the sum.
 * So what is played and what is shown are computed by the same loop.
 *
 * Images are (C, H, W), weights (C_out, C_in/groups, K, K); a window is square.
 */

export const sizeOf = (shape) => shape.reduce((all, each) => all * each, 1);

export const array = (shape, data) => ({ shape, data: Float64Array.from(data) });

export const zeros = (shape) => array(shape, new Array(sizeOf(shape)).fill(0));

/** An array whose entries are a function of their indices. */
export function tabulate(shape, entry) {
  const made = zeros(shape);
  for (let flat = 0; flat < made.data.length; flat++) {
    made.data[flat] = entry(...unravel(flat, shape));
  }
  return made;
}

/** The indices of an entry, from its place in row-major order. */
export function unravel(flat, shape) {
  const indices = [];
  for (const length of [...shape].reverse()) {
    indices.unshift(flat % length);
    flat = Math.floor(flat / length);
  }
  return indices;
}

/** An entry's place in row-major order, or −1 where there is no such entry. */
export function ravel(indices, shape) {
  let flat = 0;
  for (const [axis, index] of indices.entries()) {
    if (index < 0 || index >= shape[axis]) return -1;
    flat = flat * shape[axis] + index;
  }
  return flat;
}

/** The entry, or 0 outside. */
function at(x, ...indices) {
  const flat = ravel(indices, x.shape);
  return flat < 0 ? 0 : x.data[flat];
}

const zip = (f, ...arrays) =>
  tabulate(arrays[0].shape, (...indices) =>
    f(...arrays.map((each) => at(each, ...indices))),
  );

export const add = (x, y) => zip((a, b) => a + b, x, y);

export const subtract = (x, y) => zip((a, b) => a - b, x, y);

/** Where the steps of `untapped` stand. */
export const UNTAP = "window.untap";

/** Run a sum to its end. */
export function result(steps) {
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}

// --- The window ---------------------------------------------------------------------------

/** The taps (m, n) of a window, row by row. */
export const taps = ({ kernel }) =>
  Array.from({ length: kernel * kernel }, (_, t) => [Math.floor(t / kernel), t % kernel]);

/** d·(K − 1): how far the last tap is from the first. */
export const reach = ({ kernel, dilation }) => dilation * (kernel - 1);

/** H_out = ⌊(H + 2p − d·(K − 1) − 1)/s⌋ + 1 */
export const outputSize = (window, size) =>
  Math.max(
    0,
    Math.floor((size + 2 * window.padding - reach(window) - 1) / window.stride) + 1,
  );

/** s·i + d·m − p: where tap m meets the input at output position i. */
export const place = (i, m, { stride, padding, dilation }) =>
  stride * i + dilation * m - padding;

/** What tap (m, n) sees, at all output positions at once. */
export function tap(X, [m, n], window) {
  const [channels, height, width] = X.shape;
  const shape = [channels, outputSize(window, height), outputSize(window, width)];
  return tabulate(shape, (c, i, j) => at(X, c, place(i, m, window), place(j, n, window)));
}

/** Its transpose, as window.py makes it: zeros between the entries, and then a place for all. */
export function* untapped(Y, m, window, [height, width]) {
  const { stride, padding, dilation } = window;
  const [channels, rows, columns] = Y.shape;
  const span = (length) => Math.max(0, stride * (length - 1) + 1);
  const spread = tabulate([channels, span(rows), span(columns)], (c, k, l) =>
    k % stride || l % stride ? 0 : at(Y, c, k / stride, l / stride),
  );
  const between = `${stride - 1} zeros between`;
  yield { line: "spread = lax.pad(", tap: m, aside: [between, spread, "y"] };
  const [first, second] = m.map((each) => dilation * each);
  const placed = tabulate(
    [channels, height + 2 * padding, width + 2 * padding],
    (c, k, l) => at(spread, c, k - first, l - second),
  );
  yield { line: "placed = ", tap: m, aside: ["put where m met the input", placed, "x"] };
  return tabulate([channels, height, width], (c, k, l) =>
    at(placed, c, k + padding, l + padding),
  );
}

export const untap = (...all) => result(untapped(...all));

// --- Convolution --------------------------------------------------------------------------

/** The first input channel of the group to which output channel o belongs. */
export const firstOfGroup = (o, W, groups) =>
  Math.floor(o / (W.shape[0] / groups)) * W.shape[1];

export function* forward(X, W, window, groups) {
  const [, height, width] = X.shape;
  let Y = zeros([W.shape[0], outputSize(window, height), outputSize(window, width)]);
  for (const m of taps(window)) {
    const seen = tap(X, m, window);
    yield { line: "seen = tap(", tap: m, aside: ["tap(X, m)", seen, "y"], so: { Y } };
    const product = tabulate(Y.shape, (o, i, j) => {
      let sum = 0;
      for (let c = 0; c < W.shape[1]; c++) {
        sum += at(seen, firstOfGroup(o, W, groups) + c, i, j) * at(W, o, c, ...m);
      }
      return sum;
    });
    yield {
      line: "_product(",
      tap: m,
      aside: ["tap(X, m) · W[m]", product, "y"],
      so: { Y },
    };
    Y = add(Y, product);
    yield { line: "_sum_over(", tap: m, aside: ["added to Y", product, "y"], so: { Y } };
  }
  return Y;
}

export const biasGradient = (dY) => {
  const db = zeros([dY.shape[0]]);
  for (const [flat, dy] of dY.data.entries()) db.data[unravel(flat, dY.shape)[0]] += dy;
  return db;
};

export function* weightGradient(X, dY, window, groups) {
  const [outputs, height, width] = dY.shape;
  const shape = [outputs, X.shape[0] / groups, window.kernel, window.kernel];
  let dW = tabulate(shape, () => Number.NaN); // not known yet
  for (const m of taps(window)) {
    const seen = tap(X, m, window);
    yield { line: "seen = tap(", tap: m, aside: ["tap(X, m)", seen, "y"], so: { dW } };
    const product = tabulate([1, ...shape.slice(0, 2)], (_, o, c) => {
      let sum = 0;
      for (let i = 0; i < height; i++) {
        for (let j = 0; j < width; j++) {
          sum += at(dY, o, i, j) * at(seen, firstOfGroup(o, dW, groups) + c, i, j);
        }
      }
      return sum;
    });
    dW = tabulate(shape, (o, c, ...here) =>
      here.join() === m.join() ? at(product, 0, o, c) : at(dW, o, c, ...here),
    );
    yield {
      line: "_product(",
      tap: m,
      aside: ["Σ tap(X, m) · dY", product, "w"],
      so: { dW },
    };
  }
  return dW;
}

export function* inputGradient(dY, W, window, size, groups) {
  let dX = zeros([W.shape[1] * groups, ...size]);
  for (const m of taps(window)) {
    const share = zeros([dX.shape[0], ...dY.shape.slice(1)]);
    for (let flat = 0; flat < dY.data.length; flat++) {
      const [o, i, j] = unravel(flat, dY.shape);
      for (let c = 0; c < W.shape[1]; c++) {
        const to = ravel([firstOfGroup(o, W, groups) + c, i, j], share.shape);
        share.data[to] += dY.data[flat] * at(W, o, c, ...m);
      }
    }
    yield {
      line: "share = _product(",
      tap: m,
      aside: ["dY · W[m]", share, "y"],
      so: { dX },
    };
    const inside = untapped(share, m, window, size);
    let step = inside.next();
    for (; !step.done; step = inside.next())
      yield { ...step.value, code: UNTAP, so: { dX } };
    const back = step.value;
    yield { line: "untap(", tap: m, aside: ["untap(dY · W[m], m)", back, "x"], so: { dX } };
    dX = add(dX, back);
    yield { line: "_sum_over(", tap: m, aside: ["added to dX", back, "x"], so: { dX } };
  }
  return dX;
}

/** The kernel turned by 180°. */
export const rotated = (W) =>
  tabulate(W.shape, (o, c, m, n) => at(W, o, c, W.shape[2] - 1 - m, W.shape[3] - 1 - n));

/** Zeros around. */
export const padded = (X, p) =>
  tabulate([X.shape[0], X.shape[1] + 2 * p, X.shape[2] + 2 * p], (c, k, l) =>
    at(X, c, k - p, l - p),
  );

/**
 * dY as the turned kernel sees it: s − 1 zeros between its entries, and so many around
 * that one window begins for every pixel of the input.
 */
export function spread(dY, window, [height, width]) {
  const first = reach(window) - window.padding;
  const around = [dY.shape[0], height + reach(window), width + reach(window)];
  const made = zeros(around);
  for (let flat = 0; flat < dY.data.length; flat++) {
    const [o, i, j] = unravel(flat, dY.shape);
    const to = ravel([o, window.stride * i + first, window.stride * j + first], around);
    if (to >= 0) made.data[to] = dY.data[flat];
  }
  return made;
}

// --- Pooling ------------------------------------------------------------------------------

/** True where the tap lies inside the input. */
const inside = (m, window, X) =>
  tap(
    tabulate(X.shape, () => 1),
    m,
    window,
  );

export function* maxPool(X, window) {
  const shape = [
    X.shape[0],
    outputSize(window, X.shape[1]),
    outputSize(window, X.shape[2]),
  ];
  let Y = tabulate(shape, () => Number.NEGATIVE_INFINITY);
  let winner = tabulate(shape, () => -1);
  for (const [index, m] of taps(window).entries()) {
    const value = tap(X, m, window);
    const valid = inside(m, window, X);
    yield {
      line: "value = tap(",
      tap: m,
      aside: ["tap(X, m)", value, "y"],
      so: { Y, winner },
    };
    const wins = zip(
      (v, best, ok, w) => ok && (v > best || w < 0),
      value,
      Y,
      valid,
      winner,
    );
    yield { line: "wins = ", tap: m, aside: ["does m win?", wins, "y"], so: { Y, winner } };
    Y = zip((yes, v, best) => (yes ? v : best), wins, value, Y);
    winner = zip((yes, w) => (yes ? index : w), wins, winner);
    yield { line: "return (jnp.where(wins", tap: m, so: { Y, winner } };
  }
  return { Y, winner };
}

export function* maxPoolGradient(dY, winner, window, size) {
  let dX = zeros([dY.shape[0], ...size]);
  for (const [index, m] of taps(window).entries()) {
    const won = zip((dy, w) => (w === index ? dy : 0), dY, winner);
    const back = untap(won, m, window, size);
    const line = "return untap(";
    yield { line, tap: m, aside: ["dY · [winner = m]", won, "y"], so: { dX } };
    yield { line, tap: m, aside: ["put back by untap", back, "x"], so: { dX } };
    dX = add(dX, back);
    yield { line: "_sum_over(", tap: m, aside: ["added to dX", back, "x"], so: { dX } };
  }
  return dX;
}

/** How many taps lie inside the input. */
export const numberInside = (X, window) =>
  taps(window)
    .map((m) => inside(m, window, X))
    .reduce(add);

export function* averagePool(X, n, window) {
  let Y = zeros(n.shape);
  yield { line: "n = _divisor(", so: { Y } };
  for (const m of taps(window)) {
    const seen = tap(X, m, window);
    Y = add(Y, seen);
    yield { line: "_sum_over(", tap: m, aside: ["tap(X, m)", seen, "y"], so: { Y } };
  }
  Y = zip((sum, count) => sum / count, Y, n);
  yield { line: "/ n", so: { Y } };
  return Y;
}

export function* averagePoolGradient(dY, n, window, size) {
  const share = zip((dy, count) => dy / count, dY, n);
  let dX = zeros([dY.shape[0], ...size]);
  yield { line: "share = dY /", aside: ["share = dY / n", share, "y"], so: { dX } };
  for (const m of taps(window)) {
    const back = untap(share, m, window, size);
    dX = add(dX, back);
    yield { line: "untap(", tap: m, aside: ["untap(share, m)", back, "x"], so: { dX } };
  }
  return dX;
}

// --- Layers -------------------------------------------------------------------------------

export const positive = (X) => zip((x) => (x > 0 ? 1 : 0), X);

export const relu = (X) => zip((x) => Math.max(0, x), X);

export const times = (x, y) => zip((a, b) => a * b, x, y);

export const exponentials = (Z) => {
  const largest = Math.max(...Z.data);
  return zip((z) => Math.exp(z - largest), Z);
};

export const shares = (E) => {
  const all = E.data.reduce((sum, e) => sum + e, 0);
  return zip((e) => e / all, E);
};

/** −log P[label], without dividing first. */
export const crossEntropy = (Z, label) => {
  const largest = Math.max(...Z.data);
  const all = Z.data.reduce((sum, z) => sum + Math.exp(z - largest), 0);
  return array([1], [Math.log(all) - (Z.data[label] - largest)]);
};

export const oneHot = (label, classes) => tabulate([classes], (k) => Number(k === label));

/** M V + c, for one example. */
export const dense = (M, V, c) =>
  tabulate([V.shape[1]], (o) => {
    let sum = c.data[o];
    for (let k = 0; k < V.shape[0]; k++) sum += M.data[k] * at(V, k, o);
    return sum;
  });

export const outer = (x, y) =>
  tabulate([x.data.length, y.data.length], (k, o) => x.data[k] * y.data[o]);

/** dZ Vᵀ */
export const denseInputGradient = (dZ, V) =>
  tabulate([V.shape[0]], (k) => {
    let sum = 0;
    for (let o = 0; o < V.shape[1]; o++) sum += dZ.data[o] * at(V, k, o);
    return sum;
  });

/** Softmax, the loss and its gradient. */
export function softmaxOf(Z, label) {
  const E = exponentials(Z);
  const P = shares(E);
  const T = oneHot(label, Z.data.length);
  return { E, P, T, L: crossEntropy(Z, label), dZ: subtract(P, T) };
}
