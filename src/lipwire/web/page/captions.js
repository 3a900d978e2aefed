/** Captions: a text appears as it is said. */

const LETTERS_A_SECOND = 15;
const KEPT_MS = 1200;
const MOST_LETTERS = 140;

/** Shows in an element what is being said. */
export class Captions {
  #element;
  /** @type {string[]} what is said now, in parts that fit */
  #parts = [];
  #began = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** This is said from now on. @param {string} text */
  begin(text) {
    this.#parts = split(text);
    this.#began = performance.now();
    this.#show();
  }

  /** The speech is over. @param {boolean} interrupted */
  end(interrupted) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.clear(), interrupted ? 0 : KEPT_MS);
  }

  /** Show nothing. */
  clear() {
    clearTimeout(this.#timer);
    this.#element.hidden = true;
    this.#element.replaceChildren();
  }

  #show() {
    clearTimeout(this.#timer);
    let said = Math.round(((performance.now() - this.#began) / 1000) * LETTERS_A_SECOND) + 1;
    let part = "";
    for (const each of this.#parts) {
      part = each;
      if (said < each.length || each === this.#parts.at(-1)) break;
      said -= each.length;
    }
    this.#element.hidden = !part;
    if (!part) return;
    const end = said >= part.length ? part.length : part.lastIndexOf(" ", said) + 1 || said;
    const later = document.createElement("span");
    later.className = "later";
    later.textContent = part.slice(end);
    this.#element.replaceChildren(part.slice(0, end), later);
    this.#timer = setTimeout(() => this.#show(), 120);
  }
}

/** @param {string} text @returns {string[]} its sentences, those that are long in several parts */
function split(text) {
  const parts = [];
  for (const sentence of text.replace(/\s+/g, " ").trim().match(/.+?(?:[.!?…]+(?=\s|$)\s?|$)/gu) ?? []) {
    let rest = sentence;
    while (rest.length > MOST_LETTERS) {
      const end = rest.lastIndexOf(" ", MOST_LETTERS) + 1 || MOST_LETTERS;
      parts.push(rest.slice(0, end));
      rest = rest.slice(end);
    }
    parts.push(rest);
  }
  return parts.filter((part) => part.trim());
}
