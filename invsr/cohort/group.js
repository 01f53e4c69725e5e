"use strict";
(() => {
  const { rows, figures } = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50;
  const byId = (id) => document.getElementById(id);
  const columns = [
    { key: "name", head: "result" }, { key: "method", head: "method" },
    ...figures.map((one) => ({ ...one, figure: true })),
    { key: "seconds", head: "seconds", figure: true, digits: 0 },
    { key: "warnings", head: "remarks" },
  ];
  let sortKey = "name", ascending = true, page = 0;

  const make = (tag, text, className) => {
    const found = document.createElement(tag);
    if (text !== undefined && text !== "") found.textContent = text;
    if (className) found.className = className;
    return found;
  };
  const value = (row, key) => key === "warnings" ? row.warnings.length + (row.error ? 1000 : 0) : row[key];
  const compare = (a, b) => {
    const left = value(a, sortKey), right = value(b, sortKey);
    // Rows without the figure come last, whichever the direction.
    if (left === null || right === null) return (left === null) - (right === null);
    const order = typeof left === "string" ? left.localeCompare(right, undefined, { numeric: true }) : left - right;
    return ascending ? order : -order;
  };
  const wanted = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const show = byId("show").value;
    return rows.filter((row) => {
      const text = `${row.name} ${row.method} ${row.state}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) return false;
      if (show === "remarks") return row.warnings.length > 0;
      if (show === "outliers") return row.outliers.length > 0;
      return show === "all" || row.state === show;
    }).sort(compare);
  };

  const resultCell = (row) => {
    const cell = make("td");
    const label = make(row.report ? "a" : "span", row.name);
    if (row.report) label.href = row.report;
    cell.append(label);
    if (row.picture) {
      const link = make(row.report ? "a" : "span"), image = make("img");
      if (row.report) link.href = row.report;
      image.loading = "lazy";
      image.src = row.picture;
      image.alt = `${row.name}: scan and result in three planes`;
      link.append(image);
      cell.append(link);
    }
    return cell;
  };
  const draw = () => {
    const found = wanted(), pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const body = byId("rows");
    body.replaceChildren();
    for (const row of found.slice(page * PAGE, (page + 1) * PAGE)) {
      const line = make("tr");
      line.append(resultCell(row), make("td", row.state === "done" ? row.method : row.state, row.state === "failed" ? "failed" : ""));
      for (const { key, head, digits, figure } of columns) {
        if (!figure) continue;
        const known = row[key] !== null && row[key] !== undefined;
        const cell = make("td", known ? row[key].toFixed(digits) : "", row.outliers.includes(key) ? "figure out" : "figure");
        cell.dataset.head = head;
        line.append(cell);
      }
      const words = make("td", "", "words");
      for (const one of row.error ? [row.error] : row.warnings) words.append(make("p", one));
      line.append(words);
      body.append(line);
    }
    byId("where").textContent = `page ${page + 1} of ${pages}, ${found.length} of ${rows.length}`;
    byId("back").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("direction").textContent = ascending ? "ascending" : "descending";
    byId("sort").value = sortKey;
    for (const head of byId("heads").children) {
      head.ariaSort = head.dataset.key === sortKey ? (ascending ? "ascending" : "descending") : "none";
    }
  };
  const sortBy = (key) => {
    ascending = key === sortKey ? !ascending : true;
    sortKey = key;
    page = 0;
    draw();
  };

  for (const { key, head } of columns) {
    const cell = make("th"), button = make("button", head);
    button.type = "button";
    button.addEventListener("click", () => sortBy(key));
    cell.dataset.key = key;
    cell.append(button);
    byId("heads").append(cell);
    const option = make("option", head);
    option.value = key;
    byId("sort").append(option);
  }
  const restart = () => { page = 0; draw(); };
  byId("find").addEventListener("input", restart);
  byId("show").addEventListener("change", restart);
  byId("sort").addEventListener("change", () => { sortKey = byId("sort").value; restart(); });
  byId("direction").addEventListener("click", () => { ascending = !ascending; restart(); });
  byId("back").addEventListener("click", () => { page -= 1; draw(); });
  byId("next").addEventListener("click", () => { page += 1; draw(); });
  draw();
})();
