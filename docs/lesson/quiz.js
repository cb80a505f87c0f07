/** "Check me": an array of results is hidden, and one of its numbers asked for. */

import { label, shown } from "./format.js";
import { element } from "./panel.js";
import { spelled } from "./spell.js";

export class Quiz {
  constructor(stage, button) {
    this.stage = stage;
    this.start = button("Check me", () => (this.asked ? this.leave(true) : this.ask()));
    this.start.setAttribute("aria-expanded", "false");
    const id = `${stage.scene.id}-answer`;
    this.question = element("label", { for: id });
    this.input = element("input", { id, inputmode: "text", autocomplete: "off" });
    this.form = element(
      "form",
      { hidden: "" },
      this.question,
      this.input,
      element("button", {}, "Answer"),
      button("Hint", () => this.hint()),
      button("Another", () => this.ask()),
    );
    this.verdict = element("p", { role: "status" });
    this.form.append(this.verdict);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.answer();
    });
    this.element = element("div", { class: "quiz" }, this.start, this.form);
    this.known = new Set();
  }

  hides(name, flat) {
    return this.asked?.[0] === name && !this.known.has(flat);
  }

  /** A number that was not asked for yet, one that is not 0 if there is any. */
  ask() {
    const { stage } = this;
    stage.player?.leave();
    const { results } = stage.scene;
    const name = results[Math.floor(Math.random() * results.length)];
    const all = [...stage.arrays[name].data.keys()];
    const busy = all.filter((flat) => stage.arrays[name].data[flat] !== 0);
    const among = busy.length ? busy : all;
    const flat = among[Math.floor(Math.random() * among.length)];
    this.known.clear();
    this.asked = [name, flat];
    this.start.textContent = "Show all again";
    this.start.setAttribute("aria-expanded", "true");
    this.form.hidden = false;
    this.input.value = "";
    this.verdict.textContent = "";
    this.question.textContent = `What is ${label(name, flat, stage.arrays[name].shape)}?`;
    stage.show();
    stage.clear();
    stage.mark(name, flat, "here");
    stage.pointed = [name, flat];
    stage.say([`${this.question.textContent} ${name} is hidden.`]);
    this.input.focus();
  }

  /** What it is made of, without what it makes. */
  hint() {
    const [name, flat] = this.asked;
    this.stage.point(name, flat);
  }

  answer() {
    const [name, flat] = this.asked;
    const { stage } = this;
    const text = this.input.value.trim().replace("−", "-").replace(",", ".");
    const value = text === "" ? Number.NaN : Number(text);
    const right = stage.arrays[name].data[flat];
    const close = 0.5001 * 10 ** -stage.digits;
    if (Number.isNaN(value)) {
      this.verdict.textContent = "That is no number.";
    } else if (Math.abs(value - right) <= close) {
      this.known.add(flat);
      stage.show();
      stage.point(name, flat);
      this.verdict.textContent = `Right: ${shown(right, stage.digits)}.`;
    } else {
      stage.point(name, flat);
      const [sum] = spelled(stage.accounts[name][flat], stage).slice(-1);
      this.verdict.innerHTML = `${shown(value, stage.digits)} is not right. It is ${sum}.`;
    }
  }

  leave(show = false) {
    if (!this.asked) return;
    const asked = this.asked;
    this.asked = null;
    this.known.clear();
    this.form.hidden = true;
    this.start.textContent = "Check me";
    this.start.setAttribute("aria-expanded", "false");
    if (!show) return;
    this.stage.show();
    this.stage.point(...asked);
  }
}
