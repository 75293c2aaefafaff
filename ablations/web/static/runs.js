// The runs tab: which runs there are, and the grids of those that were picked side by side.

import { ask, byId, make, Refusal, say, showPieces } from "./common.js";

const PAGE = 20;
let listing = null;
let limit = PAGE;
let latest = 0; // the number of the last question, so that a late answer to an earlier one is not shown
const message = byId("runs-message");

async function load() {
  const status = byId("runs-status");
  status.textContent = "Reading the runs \u2026";
  try {
    listing = await (await ask("/api/runs")).json();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return say(message, error.message);
  } finally {
    status.textContent = "";
  }
  const { runs, measures, left_out: leftOut } = listing;
  byId("runs-workspace").hidden = !runs.length;
  say(message, !runs.length && listing.output_dir ? "There is no finished run with pictures in this folder yet." : "");
  const details = byId("left-out");
  details.hidden = !leftOut.length;
  details.open = !runs.length;
  details.firstElementChild.textContent = `${leftOut.length} run${leftOut.length === 1 ? "" : "s"} that cannot be shown`;
  details.lastElementChild.replaceChildren(...leftOut.map((item) => {
    const line = make("li");
    line.append(make("strong", "", item.name), ` (${item.status}): ${item.reason}`);
    return line;
  }));
  if (!runs.length) return;
  const seeds = [...new Set(runs.map((run) => run.seed))].sort((a, b) => a - b);
  fill(byId("run-seed"), seeds.map((seed) => [String(seed), String(seed)]));
  fill(byId("measure"), measures.map((measure) => [measure.key, measure.heading]), "st_lpips");
  showRuns();
}

/** Options of a select; what was chosen stays chosen if it is still there, else `first` is. */
function fill(select, options, first) {
  const before = select.value || first;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

function showRuns() {
  const list = byId("run-list"), measure = byId("measure").value;
  const chosen = new Set(picked());
  const runs = listing.runs.filter((run) => String(run.seed) === byId("run-seed").value);
  runs.sort((a, b) => (b.diversity[measure] ?? -Infinity) - (a.diversity[measure] ?? -Infinity));
  const known = runs.filter((run) => chosen.has(run.arm));
  // To start with, the two most diverse that may be compared.
  const start = known.length ? known : runs.filter((run) => run.group === runs[0].group).slice(0, 2);
  list.replaceChildren(list.firstElementChild);
  for (const group of [...new Set(runs.map((run) => run.group))]) {
    if (listing.groups.length > 1) list.append(make("p", "group", listing.groups[group]));
    for (const run of runs.filter((other) => other.group === group)) list.append(runLabel(run, measure, start.includes(run)));
  }
  const note = listing.measures.find((other) => other.key === measure);
  byId("measure-note").textContent = note ? `${note.heading}: ${note.note}. A high value is no merit by itself: look at the pictures.` : "";
  showGrids();
}

function runLabel(run, measure, isChosen) {
  const label = make("label"), box = make("input"), text = make("span", "", run.arm);
  box.type = "checkbox";
  box.value = run.name;
  box.dataset.arm = run.arm;
  box.checked = isChosen;
  text.append(make("span", "value", `mean diversity ${figure(run.diversity[measure])}`));
  label.append(box, text);
  return label;
}

const figure = (value) => (value == null ? "not measured" : value.toFixed(3));
const picked = () => [...byId("run-list").querySelectorAll("input:checked")].map((box) => box.dataset.arm);

async function showGrids() {
  const runs = [...byId("run-list").querySelectorAll("input:checked")].map((box) => box.value);
  const status = byId("grid-status"), grids = byId("grids"), mine = ++latest;
  say(message, "");
  if (!runs.length) {
    grids.replaceChildren();
    byId("more").hidden = true;
    status.textContent = "Pick at least one run.";
    return;
  }
  const question = { runs, measure: byId("measure").value, filter: byId("filter").value, order: byId("order").value, limit };
  let answer;
  try {
    answer = await (await ask("/api/grids", question)).json();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (mine !== latest) return;
    grids.replaceChildren();
    byId("more").hidden = true;
    status.textContent = "";
    return say(message, error.message);
  }
  if (mine !== latest) return;
  grids.replaceChildren(...answer.rows.map(row));
  const missing = answer.left_out_prompts ? `; ${answer.left_out_prompts} are not in every run and are left out` : "";
  status.textContent = `${answer.rows.length} of ${answer.total} prompt${answer.total === 1 ? "" : "s"}${missing}`;
  byId("more").hidden = answer.rows.length >= answer.total;
}

function row(content) {
  const element = make("article", "row"), runs = make("div", "row-runs");
  element.append(picture(content.picture, [[content.coarse, false]]), runs);
  for (const run of content.runs) {
    const box = make("div", "row-run"), title = make("h3", "", run.name), candidates = make("div", "candidates");
    title.append(make("span", "value", figure(run.diversity)));
    candidates.append(...run.candidates.map((candidate) => picture(candidate.picture, candidate.pieces)));
    box.append(title, candidates);
    runs.append(box);
  }
  return element;
}

function picture(url, pieces) {
  const element = make("figure"), place = make("div", "picture"), caption = make("figcaption", "text");
  showPieces(caption, pieces);
  if (url) {
    const image = new Image();
    image.loading = "lazy";
    image.alt = pieces.map(([text]) => text).join("");
    image.src = url;
    place.append(image);
  } else place.classList.add("failed");
  element.append(place, caption);
  return element;
}

function anew() {
  limit = PAGE;
  return showGrids();
}

let typing = 0;
byId("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(anew, 200);
});
byId("order").addEventListener("change", anew);
byId("measure").addEventListener("change", showRuns);
byId("run-seed").addEventListener("change", showRuns);
byId("run-list").addEventListener("change", anew);
byId("reload")?.addEventListener("click", load);
byId("more").addEventListener("click", () => {
  limit = Math.min(limit + PAGE, 200);
  showGrids();
});
document.addEventListener("tab", (event) => {
  if (event.detail === "runs" && listing === null) load();
});
