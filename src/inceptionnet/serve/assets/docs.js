// The OpenAPI document as a page.
const element = (name, text) => Object.assign(document.createElement(name), { textContent: text ?? "" });

function parameter({ name, in: where, schema, required }) {
  const values = schema.enum ? schema.enum.join(" or ") : schema.type;
  const bounds = [["minimum", "from"], ["maximum", "to"], ["default", "default"]].filter(([key]) => key in schema);
  const more = bounds.map(([key, word]) => ` ${word} ${schema[key]}`).join("");
  return [`${name} (${where}${required ? ", required" : ""})`, `${values}${more}. ${schema.description ?? ""}`];
}

function operation(path, method, about) {
  const found = element("details");
  const summary = element("summary");
  summary.append(element("code", `${method.toUpperCase()} ${path}`), ` ${about.summary}`);
  found.append(summary);
  if (about.description) found.append(element("p", about.description));
  const list = element("dl");
  list.className = "facts";
  const rows = [
    ...(about.parameters ?? []).map(parameter),
    ...Object.keys(about.requestBody?.content ?? {}).map((kind) => ["body", kind]),
    ...Object.entries(about.responses).map(([code, { description }]) => [code, description]),
  ];
  for (const [name, text] of rows) list.append(element("dt", name), element("dd", text));
  found.append(list);
  return found;
}

const { paths } = await (await fetch("/openapi.json")).json();
document.getElementById("example").textContent = [
  `curl -F images=@one.jpg -F images=@two.jpg '${location.origin}/predict?top=3'`,
  `curl -H 'Content-Type: image/jpeg' --data-binary @one.jpg '${location.origin}/predict'`,
  `curl -H 'Content-Type: application/json' -d '{"images": ["…base64…"]}' '${location.origin}/predict'`,
].join("\n");
document.getElementById("paths").append(
  ...Object.entries(paths).flatMap(([path, ways]) => Object.entries(ways).map(([method, about]) => operation(path, method, about))),
);
