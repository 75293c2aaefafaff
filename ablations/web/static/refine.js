// The refining tab: what was typed goes to the server, its state comes back and is shown. The state lives on the server, per browser tab.

import { ask, bothCuts, byId, make, Refusal, say, showPieces } from "./common.js";

const prompt = byId("prompt"), cards = byId("cards"), message = byId("message");
let state = null; // the server's last state; null before the first prompt
let busy = false;
let waiting = {}; // what was asked for meanwhile, by kind: a change of settings, a redraw with another seed, a prompt to refine
let token = sessionStorage.getItem("tab") || "";
const urls = new Set(); // pictures that are shown, to be released with the next state

const own = () => ({ "x-tab": token });

function settings() {
  const strategy = document.querySelector("[name=strategy]:checked").value;
  const seed = byId("seed").value.trim() === "" ? null : Number(byId("seed").value);
  return {
    mode: strategy === "extend" ? "extend" : "rewrite",
    max_new_tokens: strategy === "extend" ? 50 : Number(strategy),
    prompt_len: Number(byId("length").value),
    seed,
    ...words(),
  };
}

const words = () => ({ keep: byId("keep").value, ban: byId("ban").value });

function showSettings(values) {
  const strategy = values.mode === "extend" ? "extend" : String(values.max_new_tokens);
  for (const radio of document.querySelectorAll("[name=strategy]")) radio.checked = radio.value === strategy;
  const shown = { length: values.prompt_len, seed: values.seed, keep: values.keep, ban: values.ban };
  for (const [id, value] of Object.entries(shown)) {
    if (document.activeElement !== byId(id)) byId(id).value = value; // else it is being typed
  }
  showLength();
}

function showLength() {
  byId("length-shown").value = byId("length").value;
  byId("length-field").hidden = document.querySelector("[name=strategy]:checked").value !== "extend";
}

/** Do something that gives a new state; one at a time: of what is done meanwhile the latest of each kind comes after it. */
async function act(path, body) {
  if (busy) return false;
  setBusy(true);
  say(message, "");
  const typed = prompt.value, last = state?.prompt;
  try {
    const next = await (await ask(path, body, own())).json();
    // What was typed and not sent is kept: it came meanwhile, or stood there while something else was changed.
    show(next, prompt.value !== typed || (typed !== last && next.prompt === last));
    return true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    await recover(error);
    return false;
  } finally {
    setBusy(false);
    goOn();
  }
}

/** Do the next of what was asked for meanwhile. */
function goOn() {
  const [kind, more] = Object.entries(waiting)[0] ?? [];
  if (kind === undefined) return;
  delete waiting[kind];
  if (kind === "edit" && more.prompt === state?.prompt) goOn();
  else go(kind, more);
}

async function recover(error) {
  if (error.status === 410) return forget(error.message);
  if (error.status === 409) {
    const isDraft = prompt.value !== state?.prompt;
    show(await (await ask("/api/state", undefined, own())).json(), isDraft);
    return say(message, "These candidates were drawn in another window meanwhile.");
  }
  if (state) showSettings(state.settings);
  say(message, sentence(error.message));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

function setBusy(value) {
  busy = value;
  cards.setAttribute("aria-busy", value);
  for (const button of document.querySelectorAll("#workspace button")) button.disabled = value;
  byId("back").disabled = value || !state?.can_go_back;
}

function forget(text = "") {
  state = null;
  waiting = {};
  token = "";
  sessionStorage.removeItem("tab");
  byId("workspace").hidden = true;
  if (byId("examples")) byId("examples").hidden = false;
  byId("submit").textContent = "Refine";
  say(message, text && sentence(text));
}

function show(next, keepsDraft = false) {
  if (next.tab) {
    token = next.tab;
    sessionStorage.setItem("tab", token);
  }
  state = next;
  byId("workspace").hidden = false;
  for (const url of urls) URL.revokeObjectURL(url);
  urls.clear();
  if (!keepsDraft) prompt.value = state.prompt;
  fit();
  showSettings(state.settings);
  showPieces(byId("present"), bothCuts(state.pieces, state.marked));
  say(byId("notes"), state.notes.map(sentence).join(" "));
  byId("comparison").hidden = true;
  if (byId("examples")) byId("examples").hidden = true;
  cards.replaceChildren(...state.candidates.map(card));
  byId("status").textContent = `Step ${state.steps}: ${state.candidates.length} new candidates.`;
  draw(byId("present-picture"), { text: "prompt", candidate: 0 }, "your prompt");
  state.candidates.forEach((_, i) => draw(cards.children[i].querySelector(".picture"), { text: "refined", candidate: i }, `candidate ${i + 1}`));
}

function card(candidate, i) {
  const made = byId("card").content.cloneNode(true).firstElementChild;
  made.querySelector(".number").textContent = String(i + 1);
  showPieces(made.querySelector(".text"), candidate.pieces);
  const tokens = `${candidate.num_new_tokens} new token${candidate.num_new_tokens === 1 ? "" : "s"}`;
  made.querySelector(".facts").textContent = tokens + (candidate.truncated ? ", the last word is cut" : "")
    + (candidate.put_back.length ? `, put back: ${candidate.put_back.join(", ")}` : "");
  const pick = made.querySelector(".pick");
  pick.setAttribute("aria-label", `Go on from candidate ${i + 1}: ${candidate.refined}`);
  pick.addEventListener("click", () => choose(i));
  made.querySelector(".compare").addEventListener("click", () => compare(i));
  made.querySelector(".copy").addEventListener("click", (event) => copy(candidate.refined, event.currentTarget));
  return made;
}

/** Put a picture into `place` once the server has drawn it; nothing, if the candidates have changed by then. */
async function draw(place, wanted, alt) {
  const { revision } = state, mine = state;
  place.className = place.className.replace(/ (waiting|failed)/g, "") + " waiting";
  place.replaceChildren();
  try {
    const answer = await ask("/api/picture", { revision, plug_in: false, ...wanted }, own());
    const blob = await answer.blob();
    if (state !== mine || answer.status === 204) return;
    const image = new Image(), url = URL.createObjectURL(blob);
    urls.add(url);
    image.alt = alt;
    image.src = url;
    place.classList.remove("waiting");
    place.replaceChildren(image);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (state !== mine) return;
    place.classList.replace("waiting", "failed");
    say(message, sentence(error.message));
  }
}

function compare(i) {
  const grid = byId("comparison-grid"), candidate = state.candidates[i];
  const texts = [["typed", "Your words", [[state.typed, false]]], ["refined", `Candidate ${i + 1}`, candidate.pieces]];
  const encoders = [[false, "original text encoder"], [true, "plug-in text encoder"]];
  grid.replaceChildren();
  byId("comparison").hidden = false;
  for (const [plugIn, encoder] of encoders) {
    for (const [text, title, pieces] of texts) {
      const figure = make("figure"), place = make("div", "picture"), caption = make("figcaption"), words = make("span", "text");
      showPieces(words, pieces);
      caption.append(make("strong", "", `${title}, ${encoder}`), words);
      figure.append(place, caption);
      grid.append(figure);
      draw(place, { text, candidate: i, plug_in: plugIn }, `${title}, ${encoder}`);
    }
  }
  byId("comparison").scrollIntoView({ block: "nearest" });
}

async function choose(i) {
  if (await act("/api/act", { action: "pick", candidate: i, revision: state.revision })) cards.querySelector(".pick").focus({ preventScroll: true });
}

/** Something that is done later where something else is under way. */
function set(action, more) {
  if (busy) waiting[action] = action === "change" ? { settings: { ...waiting.change?.settings, ...more.settings } } : more;
  else go(action, more);
}

const go = (action, more = {}) => state && act("/api/act", { action, revision: state.revision, ...more });

async function submit() {
  if (!state) {
    if (await act("/api/start", { prompt: prompt.value, settings: settings() })) prompt.blur();
  } else if (busy) {
    set("edit", { prompt: prompt.value });
  } else if (prompt.value === state.prompt) {
    say(message, "That is the present prompt: change it, pick a card, or redraw for others.");
  } else if (await go("edit", { prompt: prompt.value })) prompt.blur();
}

async function copy(text, button) {
  const label = [...button.childNodes];
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
    say(message, "The browser does not let the page copy: mark the text and copy it yourself.");
  }
  setTimeout(() => button.replaceChildren(...label), 1200);
}

async function download() {
  try {
    const url = URL.createObjectURL(await (await ask("/api/history", undefined, own())).blob());
    const link = make("a");
    link.href = url;
    link.download = "refined-prompt.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    await recover(error);
  }
}

function restart() {
  forget();
  byId("submit").textContent = "Refine";
  prompt.value = "";
  fit();
  prompt.focus();
}

/** As high as its text; the style sheet sets the limits. */
function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`; // and its border
}

byId("prompt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Escape") prompt.blur();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
prompt.addEventListener("input", fit);
byId("length").addEventListener("input", showLength);
byId("length").addEventListener("change", () => set("change", { settings: { prompt_len: settings().prompt_len } }));
byId("strategy").addEventListener("change", () => {
  showLength();
  const { mode, max_new_tokens } = settings();
  set("change", { settings: { mode, max_new_tokens } });
});
byId("seed").addEventListener("change", () => {
  const { seed } = settings();
  if (state && seed === null) byId("seed").value = state.settings.seed;
  else if (state && seed !== state.settings.seed) set("redraw", { seed });
});
for (const name of ["keep", "ban"]) {
  byId(name).addEventListener("change", () => {
    if (state && byId(name).value !== state.settings[name]) set("change", { settings: words() });
  });
}
byId("back").addEventListener("click", () => go("back"));
byId("redraw").addEventListener("click", () => go("redraw"));
byId("copy").addEventListener("click", (event) => copy(state.prompt, event.currentTarget));
byId("download").addEventListener("click", download);
byId("restart").addEventListener("click", restart);
for (const example of document.querySelectorAll("#examples .example")) {
  example.addEventListener("click", () => {
    prompt.value = example.textContent;
    submit();
  });
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("textarea, select, input:not([type=radio], [type=range])");
  if (!state || busy || typing || event.ctrlKey || event.metaKey || event.altKey || byId("refine").hidden) return;
  if (["1", "2", "3"].includes(event.key) && Number(event.key) <= state.candidates.length) choose(Number(event.key) - 1);
  else if (event.key === "b" && state.can_go_back) go("back");
  else if (event.key === "r") go("redraw");
  else if (event.key === "c") copy(state.prompt, byId("copy"));
});

// A tab that is loaded again goes on where it was.
showLength();
if (token) {
  try {
    show(await (await ask("/api/state", undefined, own())).json());
    setBusy(false);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    forget();
  }
}
