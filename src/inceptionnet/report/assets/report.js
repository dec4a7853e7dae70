"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const counts = new Map(data.cells.map(([i, j, n]) => [`${i},${j}`, n]));
  const count = (i, j) => counts.get(`${i},${j}`) ?? 0;
  const imaged = new Set(Object.keys(data.images));
  const rowTotals = new Map();
  const errors = new Map();
  for (const [i, j, n] of data.cells) {
    rowTotals.set(i, (rowTotals.get(i) ?? 0) + n);
    if (i !== j) for (const k of [i, j]) errors.set(k, (errors.get(k) ?? 0) + n);
  }

  function element(tag, text = "", attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const orders = {
    given: () => data.shown,
    name: () => data.shown.toSorted((a, b) => data.classes[a].localeCompare(data.classes[b], undefined, { numeric: true })),
    recall: () => data.shown.toSorted((a, b) => (data.recall[a] ?? 2) - (data.recall[b] ?? 2)),
    errors: () => data.shown.toSorted((a, b) => (errors.get(b) ?? 0) - (errors.get(a) ?? 0)),
    clustered: () => data.clustered.map((k) => data.shown[k]),
  };

  function sentence(i, j, n) {
    const [label, predicted] = [data.classes[i], data.classes[j]];
    const images = n === 1 ? "image" : "images";
    return i === j ? `${n} ${images} of ${label} classified correctly` : `${n} ${images} of ${label} confused with ${predicted}`;
  }

  function drawMatrix(order) {
    const matrix = document.getElementById("matrix");
    const head = element("tr");
    head.append(element("td"));
    for (const j of order) {
      const heading = element("th", "", { scope: "col", title: data.classes[j] });
      heading.append(element("span", data.classes[j]));
      head.append(heading);
    }
    const body = element("tbody");
    for (const i of order) {
      const row = element("tr");
      const name = element("th", "", { scope: "row", title: data.classes[i] });
      name.append(element("span", data.classes[i]));
      row.append(name);
      for (const j of order) {
        const n = count(i, j);
        const cell = element("td");
        if (n) {
          const share = n / rowTotals.get(i);
          const shown = imaged.has(`${i},${j}`);
          const inside = element(shown ? "button" : "span", n, { style: `--share: ${share.toFixed(3)}`, title: sentence(i, j, n) });
          if (shown) {
            inside.type = "button";
            inside.dataset.cell = `${i},${j}`;
            inside.setAttribute("aria-label", sentence(i, j, n));
          }
          cell.append(inside);
          cell.classList.toggle("strong", share > 0.45);
        }
        cell.classList.toggle("diagonal", i === j);
        row.append(cell);
      }
      body.append(row);
    }
    const top = element("thead");
    top.append(head);
    matrix.replaceChildren(top, body);
    matrix.classList.toggle("short", order.every((k) => data.classes[k].length <= 3));
  }

  function showImages(title, groups) {
    const panel = document.getElementById("cell");
    const heading = element("h3");
    const close = element("button", "×", { type: "button", "aria-label": "Close" });
    close.addEventListener("click", () => { panel.hidden = true; });
    heading.append(element("span", title), close);
    const thumbs = element("div", "", { class: "thumbs" });
    for (const { key, note } of groups) {
      for (const [name, confidence, file] of data.images[key] ?? []) {
        const figure = element("figure");
        figure.append(element("img", "", { src: `data:image/webp;base64,${file}`, alt: name, title: name }));
        figure.append(element("figcaption", `${note}${(100 * confidence).toFixed(0)} % ${name}`));
        thumbs.append(figure);
      }
    }
    panel.replaceChildren(heading, thumbs);
    panel.hidden = false;
    panel.scrollIntoView({ block: "nearest" });
    panel.focus({ preventScroll: true });
  }

  const inFile = (keys) => keys.reduce((sum, key) => sum + (data.images[key]?.length ?? 0), 0);
  const shownOf = (shown, all) => (shown < all ? `, ${shown} shown` : "");

  function showCell(key) {
    const [i, j] = key.split(",").map(Number);
    const n = count(i, j);
    showImages(sentence(i, j, n) + shownOf(inFile([key]), n), [{ key, note: "" }]);
    for (const button of document.querySelectorAll("#matrix button")) {
      button.setAttribute("aria-pressed", String(button.dataset.cell === key));
    }
  }

  function showClass(i) {
    const cells = data.cells.filter(([label, predicted]) => label === i && predicted !== i).toSorted((a, b) => b[2] - a[2]);
    const all = cells.reduce((sum, [, , n]) => sum + n, 0);
    const groups = cells.map(([, j]) => ({ key: `${i},${j}`, note: `${data.classes[j]} ` }));
    const title = `${data.classes[i]}: ${all} ${all === 1 ? "error" : "errors"}`;
    showImages(title + shownOf(inFile(groups.map(({ key }) => key)), all), groups);
  }

  function sortTable(heading) {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const ascending = heading.getAttribute("aria-sort") === "descending" || (!heading.hasAttribute("aria-sort") && column === 0);
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => (column ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true }));
    const rows = [...table.tBodies[0].rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (button.dataset.cell) showCell(button.dataset.cell);
    else if (button.dataset.class) showClass(Number(button.dataset.class));
    else if (button.closest("#table thead")) sortTable(button.closest("th"));
  });
  const order = document.getElementById("order");
  if (order) {
    order.addEventListener("change", ({ target }) => drawMatrix(orders[target.value]()));
    drawMatrix(orders.given());
  }
})();
