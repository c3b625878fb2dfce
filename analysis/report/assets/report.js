// Tables sort by a click on a column's name, or by Enter or Space on it: up, down, as they were.
// The contents are open beside the page where there is room, and fold away on a phone when one is chosen.
// Without this script the pages lack nothing but that.
"use strict";

const ORDERS = ["ascending", "descending", "none"];
const text = new Intl.Collator("en", { numeric: true });

function units(table) {
  // A row of the paper's tables is a group of lines that stays together.
  return table.classList.contains("groups") ? [...table.tBodies] : [...table.tBodies[0].rows];
}

function key(unit, column) {
  const cell = unit.querySelector(`[data-col="${column}"]`);
  if (cell === null) return null;
  const given = cell.dataset.sort;
  if (given !== undefined) return given === "" ? null : Number(given);
  const shown = cell.textContent.trim();
  if (shown === "" || shown === "–") return null;
  if (!cell.classList.contains("number")) return shown;
  const number = Number(shown);
  return Number.isNaN(number) ? null : number;
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : text.compare(String(a), String(b));
}

function sort(table, original, column, order) {
  const parent = original[0].parentNode;
  const keyed = original.map((unit) => [key(unit, column), unit]);
  if (order !== "none") {
    const sign = order === "ascending" ? 1 : -1;
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
      return sign * compare(a, b);
    });
  }
  for (const [, unit] of keyed) parent.append(unit);
}

function makeSortable(table) {
  const original = units(table);
  if (original.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("plain")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const before = ORDERS.indexOf(head.getAttribute("aria-sort"));
      const order = ORDERS[(before + 1) % ORDERS.length];
      for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      sort(table, original, column, order);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);

const contents = document.querySelector("nav details");
const beside = window.matchMedia("(min-width: 64rem)");
const unfold = () => { contents.open = beside.matches; };
unfold();
const bottom = (part) => part.getBoundingClientRect().bottom;
const here = contents.querySelector("[aria-current]");
// Not scrollIntoView, after which Chromium 150 begins there with the first Tab.
if (here) contents.scrollTop += Math.max(0, bottom(here) - bottom(contents));
beside.addEventListener("change", unfold);
contents.addEventListener("click", (event) => { if (event.target.closest("a")) unfold(); });

// Paper shows what is folded away on the screen, and figures that were not scrolled to.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  document.querySelectorAll("img[loading]").forEach((image) => { image.loading = "eager"; });
});
