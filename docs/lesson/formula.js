/**
 * Formulas, written as one types them, become MathML: `Y_{i,j} = Σ_{m,n} W_{m,n} · X_{i+m,j+n}`.
 *
 * Letters have the colours of what they count: X and its positions k, l; the kernel W and
 * its taps m, n; Y and its positions i, j.
 */

const ROLES = { x: "Xkl", w: "WVbmn", y: "Yij" };

const roleOf = (letter) =>
  Object.keys(ROLES).find((role) => ROLES[role].includes(letter.replace(/^d(?=.)/, ""))) ??
  "";

const FUNCTIONS = ["max", "log", "winner"];

const WORDS = /^(d?[A-Z]|db|[a-z]{2,}|[a-zλ]|\d+|Σ|max|.)/u;

const escaped = (text) => text.replace(/[&<>]/g, (c) => `&#${c.codePointAt(0)};`);

function atom(word) {
  if (/^\d+$/.test(word)) return `<mn>${word}</mn>`;
  if (FUNCTIONS.includes(word)) return `<mi>${word}</mi>`;
  if (/^(d?[A-Z]|db|[a-zλ])$/u.test(word)) {
    const letters = [...word].map((letter) => `<mi>${letter}</mi>`).join("");
    return `<mrow class="${roleOf(word)}">${letters}</mrow>`;
  }
  if (/^[a-z]{2,}$/.test(word)) return `<mtext>&nbsp;${word}&nbsp;</mtext>`;
  const loose = word === "(" || word === ")" ? ' stretchy="false"' : "";
  return `<mo${loose}>${escaped(word)}</mo>`;
}

function sequence(source) {
  let rest = source.trimStart();
  let made = "";
  while (rest) {
    const [word] = rest.match(WORDS);
    rest = rest.slice(word.length);
    const script = rest.match(/^_\{([^}]*)\}/);
    if (script) {
      rest = rest.slice(script[0].length);
      const below = `<mrow>${sequence(script[1])}</mrow>`;
      const tag = word === "Σ" || word === "max" ? "munder" : "msub";
      const head = word === "Σ" ? '<mo movablelimits="false">∑</mo>' : atom(word);
      made += `<${tag}>${head}${below}</${tag}>`;
    } else {
      made += atom(word);
    }
    rest = rest.trimStart();
  }
  return made;
}

/** One formula; where it may break stands a `|`. */
export const mathml = (source) =>
  source
    .split("|")
    .map((part) => `<math><mstyle displaystyle="true">${sequence(part)}</mstyle></math>`)
    .join(" ");
