/** Steps through the loop over taps as jaxcnn runs it, and lights the line of code. */

import { element, Panel } from "./panel.js";
import { LETTERS } from "./sums.js";

const PACE = 1100; // milliseconds a step

export class Player {
  constructor(stage, button) {
    this.stage = stage;
    this.start = button("Play the loop", () => this.toggle());
    this.start.classList.add("motion");
    this.back = button("Back", () => this.move(-1));
    this.next = button("Step", () => this.move(1));
    this.end = button("Stop", () => this.leave(true));
    this.bar = element("progress", {
      "aria-label": "Steps of the loop",
      max: "1",
      value: "0",
    });
    this.element = element(
      "div",
      { class: "player", role: "group", "aria-label": "The loop" },
      this.start,
      this.back,
      this.next,
      this.end,
      this.bar,
    );
    this.now = element("div", { class: "now", hidden: "" });
    this.steps = null;
    this.idle();
  }

  idle() {
    this.start.textContent = "Play the loop";
    this.back.disabled = true;
    this.end.disabled = true;
    this.bar.hidden = true;
  }

  running() {
    return this.timer !== undefined;
  }

  toggle() {
    if (this.running()) return this.pause();
    const last = this.steps && this.at === this.steps.length - 1;
    if (last) this.at = -1;
    this.move(1);
    this.start.textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.at === this.steps.length - 1) this.pause();
      else this.show(this.at + 1);
    }, PACE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.start.textContent = this.steps ? "Go on" : "Play the loop";
  }

  /** One step on, or back. */
  move(by) {
    this.pause();
    this.stage.quiz.leave();
    this.steps ??= [...this.stage.steps()];
    this.show(Math.min(Math.max((this.at ?? -1) + by, 0), this.steps.length - 1));
    this.start.textContent = "Go on";
  }

  show(at) {
    const { stage } = this;
    const step = this.steps[at];
    this.at = at;
    this.back.disabled = at === 0;
    this.end.disabled = false;
    this.bar.hidden = false;
    this.bar.max = this.steps.length;
    this.bar.value = at + 1;
    stage.clear();
    stage.show(this.soFar(at));
    const number = step.tap ? stage.markTap(step.of, step.tap) : undefined;
    for (const { name, flat } of step.marks ?? []) stage.mark(name, flat, "with");
    if (step.of && !step.tap) {
      for (const flat of stage.arrays[step.of].data.keys())
        stage.mark(step.of, flat, "with");
    }
    const where = `Step ${at + 1} of ${this.steps.length}`;
    const tap = step.tap
      ? `, tap <b class="w">${LETTERS[number]}</b> = (${step.tap.join(", ")})`
      : "";
    const says = step.says ?? step.aside?.[0] ?? "";
    const line = element("code", {}, stage.code.light(step)).outerHTML;
    stage.say([`${where}${tap}${says ? `: ${says}` : ""}`, line]);
    this.aside(step);
  }

  /** Results that the loop has not reached are not known yet. */
  soFar(at) {
    const made = {};
    for (const step of this.steps) {
      for (const [name, array] of Object.entries(step.so)) {
        made[name] ??= { ...array, data: array.data.map(() => Number.NaN) };
      }
    }
    for (const step of this.steps.slice(0, at + 1)) Object.assign(made, step.so);
    return made;
  }

  /** What the line made, beside the code. */
  aside({ aside }) {
    this.now.hidden = !aside;
    if (!aside) return;
    const [says, array, role] = aside;
    const panel = new Panel({ name: says, says: "", role }, false);
    panel.show(array, { digits: this.stage.digits });
    for (const cell of panel.cells) cell.removeAttribute("tabindex");
    for (const table of panel.planes.children) {
      table.removeAttribute("role");
      table.removeAttribute("aria-readonly");
    }
    this.now.replaceChildren(panel.element);
  }

  /** Back to the results. */
  leave(show = false) {
    this.pause();
    if (!this.steps) return;
    this.steps = null;
    this.at = undefined;
    this.now.hidden = true;
    this.stage.code.light(null);
    this.idle();
    this.stage.show();
    if (show) this.stage.point(...this.stage.pointed);
  }
}
