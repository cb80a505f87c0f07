/** Formula and code of a scene, with the line that runs alight. */

import { facts } from "./facts.js";
import { mathml } from "./formula.js";
import { element } from "./panel.js";

export function formulas(sources) {
  const box = element("div", { class: "formulas" });
  for (const source of sources) {
    const line = element("p");
    line.innerHTML = mathml(source);
    box.append(line);
  }
  return box;
}

const fileOf = (name) => {
  const [, module] = name.match(/^(.*)\.\w+$/);
  return module === "lesson" ? "the network" : `jaxcnn/${module.replaceAll(".", "/")}.py`;
};

export class Code {
  constructor(names) {
    this.lines = Object.fromEntries(
      names.map((name) => [
        name,
        facts.code[name].map((text) => element("code", {}, text || " ")),
      ]),
    );
    this.element = element(
      "div",
      { class: "code" },
      ...names.map((name) =>
        element(
          "figure",
          {},
          element("figcaption", {}, fileOf(name)),
          element("pre", {}, ...this.lines[name]),
        ),
      ),
    );
  }

  /** Light the line of a step, and return it; no step, no light. */
  light(step) {
    for (const line of Object.values(this.lines).flat()) {
      line.classList.remove("alight");
      line.removeAttribute("aria-current");
    }
    if (!step) return "";
    const line = this.lines[step.code].find((each) => each.textContent.includes(step.line));
    line.classList.add("alight");
    line.setAttribute("aria-current", "step");
    return line.textContent.trim();
  }
}
