// A page of a run that goes on loads itself again now and then; what the reader chose is kept from one to the next.

const KEPT = `gdkit ${location.pathname}`;

function reloadLater(app, seconds) {
  const due = performance.now() + 1000 * seconds;
  const busy = () => document.hidden || app.state?.hovered != null || document.activeElement?.matches("select, input") || !getSelection().isCollapsed;
  setInterval(() => {
    if (performance.now() < due || busy()) return;
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(choicesOf(app)));
    } catch { /* storage is forbidden here: the page begins anew */ }
    location.reload();
  }, 500);
}

// What each chooser shows, by its section and label; what is pinned, by its number in the run; the place on the page.
function choicesOf(app) {
  const kept = { top: scrollY, open: [...document.querySelectorAll("details")].map((part) => part.open) };
  if (!app.sweep) return kept;
  const { sweep, state } = app;
  const labels = (indices) => [...indices].map((i) => sweep.optimizers[i].label);
  const sorted = document.querySelector('.runs th[aria-sort$="ending"]');
  return {
    ...kept,
    chosen: choosers().map(([name, select]) => [name, select.selectedOptions[0]?.textContent]),
    off: state.on.size < sweep.optimizers.length ? labels([...sweep.optimizers.keys()].filter((i) => !state.on.has(i))) : [],
    pinned: state.pinned.map((row) => cell(sweep, "lane", row)),
    sort: sorted ? [sorted.textContent, sorted.getAttribute("aria-sort") === "descending"] : null,
  };
}

const choosers = () =>
  [...document.querySelectorAll("label.chooser")].map((label) => [
    `${label.closest("section").id} ${label.closest("figure")?.className ?? ""} ${label.querySelector("span").textContent}`,
    label.querySelector("select"),
  ]);

function takeUpChoices(app) {
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT));
    sessionStorage.removeItem(KEPT);
  } catch { /* as above */ }
  if (!kept) return;
  document.querySelectorAll("details").forEach((part, i) => { part.open = Boolean(kept.open[i]); });
  if (app.sweep && kept.chosen) {
    for (const [name, text] of kept.chosen) choose(name, text);
    takeUpChips(app, kept.off);
    const rows = new Map([...app.sweep.columns.get("lane").values].map((lane, row) => [lane, row]));
    for (const lane of kept.pinned) if (rows.has(lane)) app.pin(rows.get(lane));
    takeUpSort(kept.sort);
  }
  scrollTo(0, kept.top);
}

function choose(name, text) {
  const select = choosers().find(([found]) => found === name)?.[1]; // sought each time: a choice may remake the others
  const option = [...(select?.options ?? [])].find((one) => one.textContent === text);
  if (!option || option.selected) return;
  option.selected = true;
  select.dispatchEvent(new Event("change"));
}

function takeUpChips(app, off) {
  if (!off.length) return;
  const chips = [...document.querySelectorAll(".chips .chip")];
  const shown = app.sweep.optimizers.map((o, i) => [o.label, i]).filter(([label]) => !off.includes(label)).map(([, i]) => i);
  shown.forEach((i, n) => { if (n === 0 || chips[i].getAttribute("aria-pressed") === "false") chips[i].click(); }); // the first click shows it alone
}

function takeUpSort(sort) {
  const head = [...document.querySelectorAll(".runs th")].find((one) => sort && one.textContent === sort[0]);
  for (let i = 0; head && i < (sort[1] ? 2 : 1); i++) head.querySelector("button").click();
}
