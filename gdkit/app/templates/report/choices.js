// The reader's choices: in the address, so that a view can be shared, and stored across the reloads of an unfinished run's page.

const STORAGE_KEY = `gdkit ${location.pathname}`;

function reloadAfter(app, seconds) {
  const due = performance.now() + 1000 * seconds;
  const busy = () => document.hidden || app.state?.hovered != null || document.activeElement?.matches("select, input") || !getSelection().isCollapsed;
  setInterval(() => {
    if (performance.now() < due || busy()) return;
    try {
      sessionStorage.setItem(STORAGE_KEY, JSON.stringify(readChoices(app)));
    } catch { /* storage is forbidden here: the choices are lost */ }
    location.reload();
  }, 500);
}

// The option of each chooser, by section and label; the numbers of pinned runs; open details and the scroll position.
function readChoices(app) {
  const position = { top: scrollY, open: [...document.querySelectorAll("details")].map((part) => part.open) };
  if (!app.sweep) return position;
  const { sweep, state } = app;
  const labels = (indices) => [...indices].map((i) => sweep.optimizers[i].label);
  return {
    ...position,
    chosen: choosers().map(([name, control]) => [name, control.options ? control.selectedOptions[0]?.textContent : control.value]),
    hidden: state.on.size < sweep.optimizers.length ? labels([...sweep.optimizers.keys()].filter((i) => !state.on.has(i))) : [],
    pinned: state.pinned.map((row) => cell(sweep, "lane", row)),
    zoom: zoomsOf(app),
    sort: [app.table.view.sort, app.table.view.down],
  };
}

// The windows of the charts that are zoomed, by their names.
const zoomsOf = (app) => Object.fromEntries(app.figures.filter(({ view }) => view.window).map(({ view }) => [view.name, view.window]));

const choosers = () =>
  [...document.querySelectorAll("label.chooser")].map((label) => [
    `${label.closest("section").id} ${label.closest("figure")?.className ?? ""} ${label.querySelector("span").textContent}`,
    label.querySelector("select, input"),
  ]);

// Restores stored choices, if there are any; returns whether there were.
function restoreChoices(app) {
  let stored = null;
  try {
    stored = JSON.parse(sessionStorage.getItem(STORAGE_KEY));
    sessionStorage.removeItem(STORAGE_KEY);
  } catch { /* as above */ }
  if (!stored) return false;
  document.querySelectorAll("details").forEach((part, i) => { part.open = Boolean(stored.open[i]); });
  if (app.sweep && stored.chosen) applyChoices(app, stored);
  scrollTo(0, stored.top);
  return true;
}

function applyChoices(app, { chosen, hidden, pinned, sort, zoom }) {
  for (const [name, text] of chosen) choose(name, text);
  restoreChips(app, hidden);
  const rows = new Map([...app.sweep.columns.get("lane").values].map((lane, row) => [lane, row]));
  for (const lane of pinned) if (rows.has(lane) && !app.state.pinned.includes(rows.get(lane))) app.pin(rows.get(lane));
  const isRange = (range) => range === null || (Array.isArray(range) && range.length === 2 && range.every(Number.isFinite) && range[0] !== range[1]);
  for (const figure of app.figures.filter(({ paint, view }) => paint && zoom?.[view.name])) {
    const range = zoom[figure.view.name];
    if (Object.values(range).every(isRange)) showWindow(app, figure, range);
  }
  if (app.sweep.columns.has(sort?.[0])) app.table.sortBy(sort[0], sort[1] === true);
}

const VIEW = "#view=";

function restoreAddress(app) {
  if (!location.hash.startsWith(VIEW)) return;
  try {
    applyChoices(app, JSON.parse(decodeURIComponent(location.hash.slice(VIEW.length))));
  } catch { /* the address holds no view of this page: keep its initial choices */ }
}

// Writes the choices that differ from the initial ones to the address, shortly after each.
function followChoices(app, initial) {
  let due = 0;
  const store = () => {
    const { chosen, hidden, pinned, sort, zoom } = readChoices(app);
    const before = new Map(initial.chosen);
    const changed = chosen.filter(([name, text]) => before.get(name) !== text);
    const isSorted = String(sort) !== String(initial.sort);
    const isZoomed = Object.keys(zoom).length > 0;
    const choices = { chosen: changed, hidden, pinned, sort, ...(isZoomed ? { zoom } : {}) };
    const view = changed.length || hidden.length || pinned.length || isSorted || isZoomed ? VIEW + encodeURIComponent(JSON.stringify(choices)) : "";
    if (view !== location.hash) history.replaceState(null, "", location.pathname + location.search + view);
  };
  const later = () => { clearTimeout(due); due = setTimeout(store, 150); };
  for (const kind of ["change", "input", "click", "keyup", "pointerup", "wheel"]) document.addEventListener(kind, later, true);
  addEventListener("hashchange", () => location.reload());
}

function choose(name, text) {
  const control = choosers().find(([label]) => label === name)?.[1]; // looked up each time: a choice may rebuild the other choosers
  if (control && !control.options && control.value !== text) {
    control.value = text;
    control.dispatchEvent(new Event("input"));
  }
  const option = [...(control?.options ?? [])].find((one) => one.textContent === text);
  if (!option || option.selected) return;
  option.selected = true;
  control.dispatchEvent(new Event("change"));
}

function restoreChips(app, hidden) {
  if (!hidden.length) return;
  const chips = [...document.querySelectorAll(".chips .chip")];
  const shown = app.sweep.optimizers.map((o, i) => [o.label, i]).filter(([label]) => !hidden.includes(label)).map(([, i]) => i);
  shown.forEach((i, n) => { if (n === 0 || chips[i].getAttribute("aria-pressed") === "false") chips[i].click(); }); // the first click hides all others
}
