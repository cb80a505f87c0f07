/** What the network's scene has besides: its digits, and buttons that train it. */

import { verdict } from "./network.js";
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
    this.advance();
  }

  /** One step down the loss of the digit in view; then the next digit. */
  advance() {
    const { stage } = this;
    const { scene, settings } = stage;
    const moved = scene.stepped(stage.arrays, settings);
    this.steps += 1;
    const inputs = Object.entries(moved).map(([name, { data }]) => [name, data]);
    const picture = (settings.picture + 1) % scene.learned.length;
    stage.set({ picture }, Object.fromEntries(inputs));
  }

  knows() {
    return this.right === this.stage.scene.learned.length;
  }

  toggle() {
    if (this.timer) return this.pause();
    if (this.knows()) this.reset();
    const until = this.steps + MOST;
    const isDone = () => this.knows() || this.steps >= until;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      while (!isDone()) this.advance();
      return;
    }
    this.run.textContent = "Pause";
    this.timer = setInterval(
      () => (isDone() ? this.pause() : this.advance()),
      TRAINING_PACE,
    );
  }

  pause() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.run.textContent = "Run until it knows them";
  }

  reset() {
    this.pause();
    if (this.steps === 0) return;
    this.steps = 0;
    this.stage.reset();
  }

  update() {
    const { scene, arrays, settings } = this.stage;
    const verdicts = scene.learned.map((digit) => verdict(arrays, digit));
    const unseen = scene.unseen.filter((digit) => verdict(arrays, digit).right).length;
    this.right = verdicts.filter(({ right }) => right).length;
    for (const [number, made] of this.pictures.entries()) {
      const { said, right } = verdicts[number];
      const { label } = scene.learned[number];
      const name = `a ${scene.classes[label]}, called a ${scene.classes[said]}`;
      made.setAttribute("aria-label", `Digit ${number}: ${name}`);
      made.setAttribute("aria-pressed", String(number === settings.picture));
      made.lastElementChild.textContent = `${right ? "✓" : "✗"} ${scene.classes[said]}`;
      made.classList.toggle("wrong", !right);
    }
    this.status.textContent =
      `After ${this.steps} steps: ${this.right} of ${verdicts.length} digits are named right, ` +
      `and ${unseen} of ${scene.unseen.length} that it never saw.`;
  }
}
