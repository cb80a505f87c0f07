/** An array on the page: a grid of numbers for each pair of channels. */

import { sizeOf, unravel } from "./arrays.js";
import { shown } from "./format.js";
import { LETTERS } from "./sums.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Which grid of an array it is, as the formulas name its channels: "o, c = 0, 1". */
function which(indices, shape, role) {
  if (shape.length < 3) return "";
  const letters = shape.length === 4 ? ["o", "c"] : [role === "x" ? "c" : "o"];
  const many = letters
    .map((letter, axis) => ({ letter, axis }))
    .filter(({ axis }) => shape[axis] > 1);
  if (many.length === 0) return "";
  const names = many.map(({ letter }) => letter).join(", ");
  return `${names} = ${many.map(({ axis }) => indices[axis]).join(", ")}`;
}

export class Panel {
  /** @param spec its `name`, what it `says`, its `role`, and `letters` of its taps. */
  constructor(spec, editable) {
    this.spec = spec;
    this.editable = editable;
    const symbol = element("b", { class: spec.role }, spec.name);
    const caption = element("figcaption", {}, symbol, spec.says ? ` ${spec.says}` : "");
    this.planes = element("div", { class: "planes" });
    this.element = element("figure", { "data-array": spec.name }, caption, this.planes);
    this.cells = [];
    this.shape = [];
    this.marked = [];
  }

  /** Make as many cells as the array has entries. */
  reshape(shape) {
    if (shape.join() === this.shape.join()) return;
    this.shape = shape;
    this.cells = [];
    this.marked = [];
    const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape.slice(-2);
    const planes = sizeOf(shape) / (rows * columns);
    this.planes.classList.toggle("pairs", shape.length === 4);
    this.planes.style.setProperty("--across", shape.length === 4 ? shape[1] : 1);
    this.planes.style.setProperty("--columns", columns);
    const tables = Array.from({ length: planes }, (_, plane) => {
      const first = plane * rows * columns;
      const where = which(unravel(first, shape), shape, this.spec.role);
      const table = element("table", {
        role: "grid",
        "aria-label": `${this.spec.name} ${this.spec.says} ${where}`.trim(),
        "aria-readonly": String(!this.editable),
      });
      if (where) table.createCaption().textContent = where;
      for (let row = 0; row < rows; row++) {
        const line = table.insertRow();
        for (let column = 0; column < columns; column++) {
          const cell = line.insertCell();
          cell.tabIndex = row + column === 0 ? 0 : -1;
          cell.dataset.flat = String(first + row * columns + column);
          cell.classList.toggle("editable", this.editable);
          this.cells.push(cell);
        }
      }
      return table;
    });
    this.planes.replaceChildren(...tables);
  }

  /** Show the numbers. `entries`, if any, say which zeros stand for what is not there. */
  show(array, { digits, hidden = () => false, entries = [] }) {
    this.reshape(array.shape);
    for (const [flat, cell] of this.cells.entries()) {
      const value = array.data[flat];
      if (cell.firstElementChild === null) {
        cell.textContent = hidden(flat) ? "?" : shown(value, digits);
      }
      cell.style.setProperty("--length", cell.textContent.length);
      const { empty } = entries[flat] ?? {};
      cell.classList.toggle("between", empty === "between");
      cell.classList.toggle("around", empty === "around");
      if (this.spec.tone) cell.style.setProperty("--tone", value);
      this.note(cell);
    }
  }

  /** A tap's letter in the corner, or the one that always stands there. */
  note(cell, tap) {
    const { letters } = this.spec;
    const taps = sizeOf(this.shape.slice(-2));
    const own = letters ? letters(Number(cell.dataset.flat) % taps, taps) : undefined;
    const number = tap ?? own;
    if (number === undefined) delete cell.dataset.note;
    else cell.dataset.note = LETTERS[number];
  }

  mark(flat, kind, tap) {
    const cell = this.cells[flat];
    if (!cell) return;
    cell.classList.add(kind);
    if (tap !== undefined) this.note(cell, tap);
    this.marked.push(cell);
  }

  clear() {
    for (const cell of this.marked) {
      cell.classList.remove("here", "with");
      this.note(cell);
    }
    this.marked = [];
  }

  /** Of each grid one cell can be reached by Tab, the one that was reached last. */
  rove(cell) {
    for (const other of cell.closest("table").querySelectorAll('[tabindex="0"]')) {
      other.tabIndex = -1;
    }
    cell.tabIndex = 0;
  }
}

/** The cell where an arrow key leads from another. */
export function neighbour(cell, key) {
  const row = cell.parentElement;
  const table = row.closest("table");
  const to = {
    ArrowRight: [row.rowIndex, cell.cellIndex + 1],
    ArrowLeft: [row.rowIndex, cell.cellIndex - 1],
    ArrowDown: [row.rowIndex + 1, cell.cellIndex],
    ArrowUp: [row.rowIndex - 1, cell.cellIndex],
    Home: [row.rowIndex, 0],
    End: [row.rowIndex, row.cells.length - 1],
  }[key];
  return to && (table.rows[to[0]]?.cells[to[1]] ?? cell);
}
