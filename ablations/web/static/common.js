// What both parts of the page use. Texts from prompts and runs only ever enter the page as text nodes.

export const byId = (id) => document.getElementById(id);

/** A text in pieces [[text, is_new, is_unknown], ...], new words set apart, and those that the refiner never saw. */
export function showPieces(element, pieces) {
  element.replaceChildren(...pieces.map(([text, isNew, isUnknown]) => {
    if (!isNew && !isUnknown) return document.createTextNode(text);
    const mark = document.createElement("span");
    mark.className = isNew ? "new" : "unknown";
    mark.textContent = text;
    return mark;
  }));
}

/** One text in two cuts, [[text, a], ...] and [[text, b], ...], as [[text, a, b], ...]. */
export function bothCuts(one, other) {
  const pieces = [], left = one.map((piece) => [...piece]), right = other.map((piece) => [...piece]);
  while (left.length && right.length) {
    const length = Math.min(left[0][0].length, right[0][0].length);
    pieces.push([left[0][0].slice(0, length), left[0][1], right[0][1]]);
    for (const cut of [left, right]) {
      cut[0][0] = cut[0][0].slice(length);
      if (!cut[0][0]) cut.shift();
    }
  }
  return pieces;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function say(element, text) {
  element.textContent = text || "";
  element.hidden = !text;
}

/** An answer that is no success: `status` is HTTP's, 0 where the server could not be reached. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask the server; `body` is sent as JSON. Throws a Refusal with the server's own line. */
export async function ask(path, body, headers = {}) {
  const request = body === undefined ? { headers } : {
    method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Refusal("The server does not answer: is it still running in its terminal?", 0);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Refusal(answer.error || `The server refused (${response.status}).`, response.status);
}

const tabs = [...document.querySelectorAll("[role=tab]")];
function select(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  document.dispatchEvent(new CustomEvent("tab", { detail: tab.getAttribute("aria-controls") }));
}
for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tabs[(tabs.indexOf(tab) + 1) % tabs.length];
    select(other);
    other.focus();
  });
}
