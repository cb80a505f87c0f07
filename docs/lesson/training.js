/** What the network's scene has besides: its digits, and buttons that train it. */

import { named } from "./network.js";
import { element } from "./panel.js";

const MOST = 600;
const TRAINING_PACE = 40; // milliseconds a step

/** A digit as a picture of its pixels. */
function picture(pixels) {
  const canvas = element("canvas", { width: 8, height: 8, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(8, 8);
  for (const [at, ink] of pixels.entries()) {
    const grey = 255 - Math.round((255 * ink) / 16);
    image.data.set([grey, grey, grey, 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export class Training {
  constructor(stage, button) {
    this.stage = stage;
    const { learned } = stage.scene;
    this.steps = 0;
    this.pictures = learned.map(({ pixels }, number) => {
      const made = button("", () => this.stage.set({ picture: number }));
      made.append(picture(pixels), element("span"));
      return made;
    });
    this.run = button("Run until it knows them", () => this.toggle());
    this.status = element("p", { class: "training-status", role: "status" });
    this.element = element(
      "div",
      { class: "training" },
      element(
        "div",
        { class: "buttons" },
        button("One step", () => this.step()),
        this.run,
      ),
      this.status,
      element(
        "div",
        { class: "pictures", role: "group", "aria-label": "The digits" },
        ...this.pictures,
      ),
    );
  }

  step() {
    this.pause();
    this.show(this.after(this.stage));
  }

  after(state) {
    this.steps += 1;
    return this.stage.scene.after(state);
  }

  show({ settings, inputs }) {
    const data = Object.entries(inputs).map(([name, each]) => [name, each.data]);
    this.stage.set(settings, Object.fromEntries(data));
  }

  /** Whether the network names every digit, or will not learn to. */
  isDone({ inputs }) {
    const { learned } = this.stage.scene;
    const knows = learned.every((digit) => named(inputs, digit) === digit.label);
    return knows || this.steps >= this.last;
  }

  toggle() {
    if (this.timer) return this.pause();
    this.last = this.steps + MOST;
    let state = this.stage;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      while (!this.isDone(state)) state = this.after(state);
      this.show(state);
      return;
    }
    this.run.textContent = "Pause";
    this.timer = setInterval(() => {
      if (this.isDone(this.stage)) this.pause();
      else this.show(this.after(this.stage));
    }, TRAINING_PACE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.run.textContent = "Run until it knows them";
  }

  forget() {
    this.pause();
    this.steps = 0;
  }

  update() {
    const { scene, inputs, settings } = this.stage;
    const isRight = (digit) => named(inputs, digit) === digit.label;
    const { learned, unseen } = scene;
    for (const [number, made] of this.pictures.entries()) {
      const digit = learned[number];
      const right = isRight(digit);
      const said = scene.classes[named(inputs, digit)];
      const name = `a ${scene.classes[digit.label]}, called a ${said}`;
      made.setAttribute("aria-label", `Digit ${number}: ${name}`);
      made.setAttribute("aria-pressed", String(number === settings.picture));
      made.lastElementChild.textContent = `${right ? "✓" : "✗"} ${said}`;
      made.classList.toggle("wrong", !right);
    }
    const right = (digits) => `${digits.filter(isRight).length} of ${digits.length}`;
    this.status.textContent =
      `After ${this.steps} steps: ${right(learned)} digits are named right, ` +
      `and ${right(unseen)} that it never saw.`;
  }
}
