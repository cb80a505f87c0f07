/** Put the scenes on the page; `window.lesson` lets a program touch them. */

import { facts } from "./facts.js";
import { element } from "./panel.js";
import { scenes } from "./scenes.js";
import { Stage } from "./stage.js";
import { valueFrom } from "./sums.js";
import { Training } from "./training.js";

const EXTRAS = { network: Training };

const stages = {};
for (const [number, scene] of scenes.entries()) {
  const stage = new Stage(scene, number + 1, EXTRAS[scene.id]);
  stages[scene.id] = stage;
  document.getElementById("scenes").append(stage.element);
  const link = element("a", { href: `#${scene.id}` }, scene.title);
  document.getElementById("contents").append(element("li", {}, link));
}

const plain = ({ shape, data }) => ({ shape, data: [...data] });
const all = (record, f) =>
  Object.fromEntries(Object.entries(record).map(([name, each]) => [name, f(each)]));

window.lesson = {
  /** Each scene's sliders, and the arrays it shows. */
  scenes: all(stages, ({ scene }) => ({
    sliders: all(
      scene.sliders,
      ({ from, to, values }) =>
        values ?? Array.from({ length: to - from + 1 }, (_, k) => from + k),
    ),
    shows: scene.panels.map(({ name }) => name),
  })),
  set: (id, settings, inputs) => stages[id].set(settings, inputs),
  settings: (id) => stages[id].settings,
  inputs: (id) => all(stages[id].inputs, plain),
  arrays: (id) => all(stages[id].arrays, plain),
  /** For each array that has an account, the values that its accounts make. */
  accounts: (id) =>
    all(stages[id].accounts, (entries) =>
      entries.map((entry) => valueFrom(entry, stages[id].arrays)),
    ),
  /** For each function and step of the loop, how many lines of the code it lights. */
  lights: (id) =>
    [...(stages[id].steps?.() ?? [])].map(({ code, line }) => [
      code,
      line,
      facts.code[code].filter((text) => text.includes(line)).length,
    ]),
};
