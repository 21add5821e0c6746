// What a script adds to a page that says everything without one: live charts, a table to sort and to filter, where a
// figure comes from when a pointer rests on it, and files to take away.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
document.body.classList.add("scripted");

// --- charts: each is made live when it comes near the window, and again when the colours change -----------------

const specs = read("charts");
const themes = read("themes");
const live = new Map();
const NARROW = 420; // CSS pixels; below, legends and titles made for a desk are cut off

async function show(figure) {
  const name = figure.dataset.chart;
  const spec = structuredClone(specs[name]);
  const place = figure.querySelector(".live");
  spec.width = "container";
  spec.description = figure.querySelector(".drawn").getAttribute("aria-label"); // what a screen reader says of it
  const config = structuredClone(themes[isDark() ? "dark" : "light"]);
  if (spec.usermeta?.keepsAspect) spec.height = Math.min(spec.height, Math.round((spec.height / specs[name].width) * (figure.clientWidth - 36)));
  if (figure.clientWidth < NARROW) {
    config.legend.columns = 1;
    for (const { encoding } of spec.layer) {
      for (const { legend } of Object.values(encoding)) if (legend?.columns) legend.columns = 1;
    }
    config.axisX = { titleAnchor: "end" }; // a title reaches under the names of rows, not over the edge
  }
  const embedded = await window.vegaEmbed(place, spec, {
    ast: true, // so that the page can forbid itself to make code from text
    renderer: "svg",
    config,
    tooltip: { theme: isDark() ? "dark" : "light" },
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
    downloadFileName: `${document.body.dataset.run}-${name}`,
    scaleFactor: { png: 3, svg: 1 },
  });
  place.querySelector("summary")?.setAttribute("aria-label", `Save the chart ${figure.querySelector("h3").textContent}`);
  live.get(name)?.finalize();
  live.set(name, embedded);
  figure.classList.add("is-live");
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        show(entry.target);
      }
    }
  },
  { rootMargin: "600px" },
);
document.querySelectorAll("figure[data-chart]").forEach((figure) => seen.observe(figure));

const choose = document.getElementById("choose");
if (choose) {
  const pick = () => {
    const metric = choose.elements.metric.value;
    document.querySelectorAll("figure[data-metric]").forEach((figure) => {
      figure.classList.toggle("unchosen", metric !== "" && figure.dataset.metric !== metric);
    });
  };
  choose.hidden = false;
  choose.addEventListener("input", pick);
  choose.addEventListener("submit", (event) => event.preventDefault());
  pick();
}

function recolour() {
  document.querySelectorAll("figure.is-live").forEach(show);
}
dark.addEventListener("change", recolour);
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  recolour();
});

// --- the table ------------------------------------------------------------------------------------------------

const matrix = document.getElementById("matrix");
const body = matrix.tBodies[0];
const rows = [...body.rows];
const controls = document.getElementById("controls");
controls.hidden = false;

const value = (row, column) => row.cells[column]?.dataset.value ?? "";

function sort(column, heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending";
  matrix.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const ordered = [...rows].sort((first, second) => {
    const [a, b] = [value(first, column), value(second, column)];
    if (a === "" || b === "") return (a === "") - (b === ""); // what nobody measured is last, either way
    const order = Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  });
  body.append(...ordered);
}

[...matrix.tHead.rows[0].cells].forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sort(column, heading));
});

function filter() {
  const words = controls.elements.words.value.toLowerCase().split(/\s+/);
  const picked = [...controls.querySelectorAll("select")].map(({ name }) => name).map((name) => [name, controls.elements[name]?.value ?? ""]);
  let shown = 0;
  for (const row of rows) {
    const named = row.dataset.row.toLowerCase();
    row.hidden =
      !words.every((word) => named.includes(word)) || !picked.every(([name, one]) => !one || row.dataset[name] === one);
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
}
controls.addEventListener("input", filter);
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("reset", () => setTimeout(filter));
filter();

// --- a ranking by the reader's weights ---------------------------------------------------------------------------

document.querySelectorAll("[data-weigh]").forEach((place) => {
  const form = place.querySelector("form");
  const told = place.querySelector("p[aria-live]");
  const table = place.querySelector("tbody");
  const labels = [...form.querySelectorAll("label")];
  const ranked = [...table.rows].map((row) => ({ row, figures: row.dataset.scores.split(" ").map(Number) }));

  function weigh() {
    const given = labels.map((label) => Number(label.control.value));
    const sum = given.reduce((all, one) => all + one);
    if (!sum) {
      told.textContent = "Give at least one figure a weight above 0.";
      return;
    }
    told.textContent = `Weights: ${labels.map((label, index) => `${label.textContent.trim()} ${Math.round((100 * given[index]) / sum)} %`).join(", ")}`;
    for (const one of ranked) {
      one.score = one.figures.reduce((all, figure, index) => all + (figure * given[index]) / sum, 0);
      one.row.cells[1].textContent = one.score.toFixed(2);
    }
    table.append(...[...ranked].sort((a, b) => b.score - a.score).map(({ row }) => row));
  }

  form.hidden = false;
  form.addEventListener("input", weigh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(weigh));
});

// --- where a figure comes from ----------------------------------------------------------------------------------

const card = document.getElementById("card");

function tell(cell) {
  const about = document.getElementById(cell.parentElement.dataset.about);
  const parts = about ? [...about.querySelectorAll("[data-for]")] : [];
  const wanted = parts.filter((part) => part.dataset.for.split(" ").includes(cell.dataset.figure));
  if (!wanted.length) return;
  card.replaceChildren(about.querySelector("h3").cloneNode(true), ...wanted.map((part) => part.cloneNode(true)));
  card.hidden = false;
  const [at, size] = [cell.getBoundingClientRect(), card.getBoundingClientRect()];
  const left = Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8));
  const below = at.bottom + 6 + size.height < window.innerHeight;
  card.style.left = `${left}px`;
  card.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - 6 - size.height)}px`;
}

let waiting;
matrix.addEventListener("pointerover", (event) => {
  const cell = event.target.closest("td[data-figure]");
  clearTimeout(waiting);
  card.hidden = true;
  if (cell && event.pointerType !== "touch") waiting = setTimeout(() => tell(cell), 250);
});
matrix.addEventListener("pointerleave", () => {
  clearTimeout(waiting);
  card.hidden = true;
});
window.addEventListener("scroll", () => (card.hidden = true), { passive: true, capture: true });

// --- to take away -----------------------------------------------------------------------------------------------

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

document.getElementById("csv").addEventListener("click", () => {
  const [head, ...lines] = read("csv-rows");
  const alike = lines.length === rows.length; // else several lines tell of a row
  const linesOf = (row) => (alike ? [lines[rows.indexOf(row)]] : lines.filter(([name]) => name === row.dataset.row));
  const kept = [...body.rows].filter((row) => !row.hidden).flatMap(linesOf);
  const text = [head, ...kept].map((line) => line.map(quoted).join(",")).join("\n");
  save(`${document.body.dataset.run}.csv`, "text/csv", `${text}\n`);
});

document.querySelectorAll("button[data-copy]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
});
