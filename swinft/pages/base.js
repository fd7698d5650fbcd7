// What all pages do, and what their other scripts use of it.
const page = (() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

  // The switch between light and dark; the choice is kept where the browser allows it.
  const button = document.getElementById("theme");
  const stored = { get() { try { return localStorage.getItem("swinft-theme"); } catch { return null; } },
                   set(value) { try { localStorage.setItem("swinft-theme", value); } catch { /* it is not kept */ } } };
  if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`); };
  const listeners = [label];
  const changed = () => listeners.forEach((each) => each());
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored.set(root.dataset.theme); changed(); });
  dark.addEventListener("change", changed);
  label();

  // Tables are sorted by a click on a column's name, or by the keyboard, as the name is a button.
  // A cell without a number in a column of numbers is always last.
  const keyOf = (row, column) => Number((row.cells[column].dataset.key ?? "nan").replace("inf", "Infinity"));
  const textOf = (row, column) => row.cells[column].textContent;
  const byNumber = (a, b, sign) => (isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * ((a > b) - (a < b)));
  const byText = (a, b, sign) => sign * a.localeCompare(b, undefined, { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const name = document.createElement("button");
      name.type = "button";
      name.append(...head.childNodes);
      head.append(name);
      name.addEventListener("click", () => {
        const numeric = [...table.tBodies[0].rows].some((row) => "key" in row.cells[column].dataset);
        const before = head.getAttribute("aria-sort");
        const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const [of, compare] = numeric ? [keyOf, byNumber] : [textOf, byText];
        const rows = [...table.tBodies[0].rows].sort((a, b) => compare(of(a, column), of(b, column), sign));
        table.tBodies[0].append(...rows);
      });
    });
  }

  // A colour of the style as `rgb(…)`: a variable alone is the text `light-dark(…)`, which no canvas takes.
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const color = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  return { color, onChangedColors: (listener) => listeners.push(listener) };
})();
