/** The numbers that a scene begins with: the tour's where they fit, else small whole ones. */

import { array, sizeOf } from "./arrays.js";

/** Small whole numbers, the same at every visit. */
function drawn(name, shape) {
  let state = [...name].reduce((sum, letter) => 31 * sum + letter.codePointAt(0), 7);
  const next = () => {
    state = (1103515245 * state + 12345) % 2147483648;
    return (state >> 12) % 6;
  };
  const lowest = name === "X" ? 0 : -2;
  return array(
    shape,
    Array.from({ length: sizeOf(shape) }, () => next() + lowest),
  );
}

export function first(scene, name, shape) {
  const given = scene.defaults?.[name];
  return given?.length === sizeOf(shape) ? array(shape, given) : drawn(name, shape);
}
