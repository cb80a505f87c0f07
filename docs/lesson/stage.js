/** A scene on the page: its state, and what happens when somebody touches it. */

import { unravel } from "./arrays.js";
import { board } from "./board.js";
import { Code, formulas } from "./code.js";
import { label, shown, typed } from "./format.js";
import { first } from "./inputs.js";
import { element, neighbour, Panel } from "./panel.js";
import { Player } from "./player.js";
import { Quiz } from "./quiz.js";
import { spelled } from "./spell.js";

const button = (text, action) => {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
};

export class Stage {
  /** @param Extras what else the scene has on the page, if anything. */
  constructor(scene, number, Extras) {
    this.scene = scene;
    this.digits = scene.digits ?? 2;
    this.settings = Object.fromEntries(
      Object.entries(scene.sliders).map(([name, { value }]) => [name, value]),
    );
    this.inputs = {};
    this.roles = Object.fromEntries(scene.panels.map(({ name, role }) => [name, role]));
    this.pointed = scene.start;
    const editable = Object.keys(scene.shapes(this.settings));
    this.panels = Object.fromEntries(
      scene.panels.map((spec) => [
        spec.name,
        new Panel(spec, editable.includes(spec.name)),
      ]),
    );
    this.code = new Code(scene.code);
    this.compute();
    this.build(number, Extras);
    this.listen();
    this.update();
  }

  // --- The page ---------------------------------------------------------------------------

  build(number, Extras) {
    const { scene } = this;
    const heading = `${scene.id}-heading`;
    const lead = element("div", { class: "lead" });
    lead.innerHTML = `<p>${scene.lead}</p><p class="aim"><b>Try:</b> ${scene.aim}</p>`;
    this.sliders = Object.entries(scene.sliders).map(([name, spec]) =>
      this.slider(name, spec),
    );
    this.reading = element("div", {
      class: "reading",
      role: "status",
      tabindex: "0",
      "aria-label": "What is pointed at",
    });
    this.numbers = element("div", { class: "numbers" });
    this.numbers.append(...Object.values(this.panels).map((panel) => panel.element));
    this.board = element("div", { class: "board", hidden: "" });
    this.quiz = new Quiz(this, button);
    this.player = this.steps ? new Player(this, button) : null;
    const controls = element(
      "div",
      { class: "controls" },
      ...this.sliders.map(({ box }) => box),
      ...(this.player ? [this.player.element] : []),
      this.quiz.element,
      button("Begin again", () => this.reset()),
    );
    const moral = element("p", { class: "moral" });
    moral.innerHTML = scene.moral ?? "";
    moral.hidden = !scene.moral;
    const play = element(
      "div",
      { class: "play" },
      controls,
      ...(this.player ? [this.player.now] : []),
      this.numbers,
      this.board,
      moral,
      this.reading,
    );
    const aside = element(
      "div",
      { class: "aside", role: "group", tabindex: "0", "aria-label": "Formula and code" },
      formulas(scene.formulas),
      this.code.element,
    );
    this.element = element(
      "section",
      { id: scene.id, "aria-labelledby": heading },
      element("h2", { id: heading }, `${number}. ${scene.title}`),
      lead,
      element("div", { class: "bench" }, aside, play),
    );
    if (Extras) {
      this.extras = new Extras(this, button);
      controls.after(this.extras.element);
    }
  }

  /** A slider for a setting; of `values`, if given, it picks one. */
  slider(name, spec) {
    const id = `${this.scene.id}-${name}`;
    const { values } = spec;
    const input = element("input", {
      type: "range",
      id,
      min: values ? 0 : spec.from,
      max: values ? values.length - 1 : spec.to,
    });
    const output = element("output", { for: id });
    const box = element(
      "div",
      { class: "slider" },
      element("label", { for: id }, spec.label),
      input,
      output,
    );
    input.addEventListener("input", () => {
      const value = Number(input.value);
      this.set({ [name]: values ? values[value] : value });
    });
    const show = () => {
      const value = this.settings[name];
      const limit = this.scene.limits?.(this.settings)[name];
      if (limit !== undefined) input.max = Math.min(limit, spec.to);
      input.value = values ? values.indexOf(value) : value;
      input.disabled = input.min === input.max;
      output.textContent = value;
      input.setAttribute("aria-valuetext", value);
    };
    return { box, show };
  }

  // --- State ------------------------------------------------------------------------------

  /** Other settings, and other inputs: names and arrays' entries in row-major order. */
  set(settings = {}, inputs = {}) {
    const before = this.settings;
    this.settings = { ...before, ...settings };
    for (const [name, limit] of Object.entries(this.scene.limits?.(this.settings) ?? {})) {
      this.settings[name] = Math.min(this.settings[name], limit);
    }
    for (const [name, follow] of Object.entries(this.scene.follows ?? {})) {
      if (this.settings.picture !== before.picture)
        this.inputs[name] = follow(this.settings);
    }
    this.prepare();
    for (const [name, data] of Object.entries(inputs)) {
      this.inputs[name] = { ...this.inputs[name], data: Float64Array.from(data) };
    }
    this.player?.leave();
    this.quiz.leave();
    this.update();
  }

  reset() {
    const sliders = Object.entries(this.scene.sliders);
    this.inputs = {};
    this.pointed = this.scene.start;
    this.extras?.forget();
    this.set(Object.fromEntries(sliders.map(([name, { value }]) => [name, value])));
  }

  /** Every input has the shape that the settings ask for; what has it already is kept. */
  prepare() {
    const shapes = this.scene.shapes(this.settings);
    for (const [name, shape] of Object.entries(shapes)) {
      if (this.inputs[name]?.shape.join() === shape.join()) continue;
      const follow = this.scene.follows?.[name];
      this.inputs[name] = follow ? follow(this.settings) : first(this.scene, name, shape);
    }
  }

  /** All arrays, how they came about, and the steps of the loop. */
  compute() {
    this.prepare();
    Object.assign(this, this.scene.compute(this.settings, this.inputs));
  }

  update() {
    this.compute();
    for (const { show } of this.sliders) show();
    this.show();
    const [name, flat] = this.pointed;
    this.point(name, flat < this.arrays[name].data.length ? flat : 0);
    this.extras?.update();
  }

  /** Show the arrays, or others in their place. */
  show(instead = {}) {
    for (const [name, panel] of Object.entries(this.panels)) {
      panel.show(instead[name] ?? this.arrays[name], {
        digits: this.digits,
        hidden: (flat) => this.quiz.hides(name, flat),
        entries: this.accounts[name],
      });
    }
  }

  edit(name, flat, text) {
    const value = typed(text);
    const where = label(name, flat, this.inputs[name].shape);
    if (value === null) {
      const kept = shown(this.inputs[name].data[flat], this.digits);
      const said = text.trim() ? `“${text.trim()}” is not` : "Nothing is not";
      this.say([`${where} stays ${kept}.`, `${said} a number from −99 to 99.`], "refused");
      return;
    }
    const data = [...this.inputs[name].data];
    data[flat] = value;
    this.pointed = [name, flat];
    this.set({}, { [name]: data });
  }

  // --- Pointing ---------------------------------------------------------------------------

  clear() {
    for (const panel of Object.values(this.panels)) panel.clear();
  }

  mark(name, flat, kind, tap) {
    this.panels[name]?.mark(flat, kind, tap);
  }

  /** Mark what an entry was made of, or what it went into, and spell it. */
  point(name, flat) {
    this.pointed = [name, flat];
    this.clear();
    const twin = this.scene.twins?.[name];
    const lines = [];
    if (this.accounts[name]) lines.push(...this.explain(name, flat));
    else if (twin) {
      lines.push(this.named(name, flat), ...this.explain(twin, flat));
    } else {
      lines.push(this.named(name, flat), ...this.uses(name, flat));
    }
    this.mark(name, flat, "here");
    this.say(lines);
    this.look(name, flat);
  }

  /** How much an entry is, unless that is the question. */
  value(name, flat) {
    const asked = this.quiz.hides(name, flat);
    return asked ? "?" : shown(this.arrays[name].data[flat], this.digits);
  }

  named(name, flat) {
    const { shape } = this.arrays[name];
    const symbol = `<b class="${this.roles[name] ?? ""}">${label(name, flat, shape)}</b>`;
    return `${symbol} = ${this.value(name, flat)}`;
  }

  explain(name, flat) {
    const entry = this.accounts[name][flat];
    this.markTerms(name, flat);
    const [symbol] = this.named(name, flat).split(" = ");
    const texts = spelled(entry, this);
    const note = entry.note ? [`${entry.note}.`] : [];
    return [`${symbol} = ${[...texts, this.value(name, flat)].join("<br>= ")}`, ...note];
  }

  markTerms(name, flat) {
    const entry = this.accounts[name][flat];
    for (const { factors, tap } of entry.terms) {
      for (const [other, place] of factors) this.mark(other, place, "with", tap);
    }
    for (const { name: other, flat: place, tap } of this.also?.[name]?.(flat) ?? []) {
      this.mark(other, place, "with", tap);
    }
    this.mark(name, flat, "here");
  }

  /** The sums that an input is in. */
  uses(name, flat) {
    const found = [];
    for (const made of this.scene.results) {
      for (const [place, { terms }] of this.accounts[made].entries()) {
        for (const { factors, tap } of terms) {
          if (!factors.some(([other, at]) => other === name && at === flat)) continue;
          this.mark(made, place, "with", tap);
          const others = factors.filter(([other, at]) => other !== name || at !== flat);
          for (const [other, at] of others) this.mark(other, at, "with", tap);
          const through = others.map(
            ([other, at]) => this.named(other, at).split(" = ")[0],
          );
          const into = this.named(made, place).split(" = ")[0];
          found.push(through.length ? `${into} (times ${through.join(" · ")})` : into);
        }
      }
    }
    for (const { name: other, flat: place, tap } of this.also?.[name]?.(flat) ?? []) {
      this.mark(other, place, "with", tap);
    }
    if (found.length === 0) return ["It is in no sum that is shown here."];
    const many = found.length === 1 ? "one sum" : `${found.length} sums`;
    return [`It is in ${many}: ${found.join(", ")}.`];
  }

  /** The windows that met the pixel which is pointed at. */
  look(name, flat) {
    if (!this.scene.board) return;
    if (name === "X" || name === "dX")
      this.pixel = unravel(flat, this.arrays.X.shape).slice(1);
    const pixel = this.pixel ?? this.scene.board;
    this.board.hidden = false;
    this.board.replaceChildren(...board(this, pixel));
  }

  say(lines, kind = "") {
    this.reading.className = `reading ${kind}`;
    this.reading.replaceChildren(
      ...lines.map((line) => {
        const paragraph = element("p");
        if (kind === "refused") paragraph.textContent = line;
        else paragraph.innerHTML = line;
        return paragraph;
      }),
    );
  }

  /** What a tap of a sum so far takes part in. */
  markTap(name, tap) {
    const [m] = tap;
    const number = m * this.settings.kernel + tap[1];
    for (const [flat, { terms }] of this.accounts[name].entries()) {
      for (const { factors, tap: each } of terms) {
        if (each !== number) continue;
        for (const [other, place] of factors) this.mark(other, place, "with", number);
        this.mark(name, flat, "with");
      }
    }
    return number;
  }

  // --- Mouse, finger and keys -------------------------------------------------------------

  listen() {
    const cellOf = (event) => event.target.closest?.("td");
    const nameOf = (cell) => cell.closest("[data-array]").dataset.array;
    const point = (cell) => {
      if (this.player?.running()) return;
      this.point(nameOf(cell), Number(cell.dataset.flat));
    };
    // Where the mouse rests while a number is refused, the reason stays.
    const isPointed = (cell) => {
      const [name, flat] = this.pointed;
      return nameOf(cell) === name && cell.dataset.flat === String(flat);
    };
    let focused = null;
    this.numbers.addEventListener("pointerover", (event) => {
      const cell = cellOf(event);
      const isEditing = this.numbers.querySelector("td input");
      if (cell && event.pointerType === "mouse" && !isEditing && !isPointed(cell))
        point(cell);
    });
    this.numbers.addEventListener("pointerdown", () => {
      focused = document.activeElement;
    });
    this.numbers.addEventListener("click", (event) => {
      const cell = cellOf(event);
      if (!cell || event.target !== cell) return;
      if (cell === focused && cell.classList.contains("editable")) this.open(cell);
      else {
        this.player?.leave();
        cell.focus();
        point(cell);
      }
    });
    this.numbers.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td");
      if (!cell || event.target !== cell) return;
      this.panels[nameOf(cell)].rove(cell);
      point(cell);
    });
    this.numbers.addEventListener("keydown", (event) => {
      const cell = event.target;
      if (cell.tagName !== "TD" || event.ctrlKey || event.metaKey || event.altKey) return;
      const next = neighbour(cell, event.key);
      if (next) {
        event.preventDefault();
        this.player?.leave();
        next.focus();
      } else if (cell.classList.contains("editable")) {
        const begins = /^[\d.,+−-]$/.test(event.key);
        if (!begins && event.key !== "Enter" && event.key !== "F2") return;
        event.preventDefault();
        this.open(cell, begins ? event.key : undefined);
      }
    });
  }

  /** Let the cell's number be typed anew. */
  open(cell, begun) {
    const name = cell.closest("[data-array]").dataset.array;
    const flat = Number(cell.dataset.flat);
    const where = label(name, flat, this.arrays[name].shape);
    const input = element("input", {
      inputmode: "text",
      autocomplete: "off",
      maxlength: "12",
      "aria-label": `New number for ${where}`,
    });
    this.player?.leave();
    input.value = begun ?? cell.textContent;
    cell.replaceChildren(input);
    input.focus();
    if (begun === undefined) input.select();
    const close = (keep) => {
      if (!input.isConnected || input.dataset.closed) return;
      input.dataset.closed = "yes";
      const text = input.value;
      const had = input === document.activeElement;
      input.remove();
      cell.textContent = shown(this.inputs[name].data[flat], this.digits);
      if (had) cell.focus();
      if (keep) this.edit(name, flat, text);
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        close(event.key === "Enter");
      }
    });
    input.addEventListener("blur", () => close(true));
  }
}
