// Sends each chosen image's bytes to POST predict and shows the answer. Names of classes and files are text, never markup.
"use strict";

const find = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const headers = token ? { Authorization: `Bearer ${token}` } : {};

const make = (name, text = "", attributes = {}) => {
  const element = Object.assign(document.createElement(name), attributes);
  element.textContent = text;
  return element;
};

const percent = (probability) => `${(100 * probability).toFixed(1)}%`;

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("the server does not answer; is it still running?");
  });
  const answer = await response.json().catch(() => ({ error: response.statusText })); // too many connections: plain text
  if (response.status === 401) throw new Error("open the address that the terminal printed, with all that follows the #");
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function show(item, file, { class: name, probability, ranking, sure }) {
  const rows = ranking.map((row) => {
    const line = make("div", "", { className: "row" });
    const meter = make("meter", "", { min: 0, max: 1, value: row.probability, ariaLabel: row.class });
    line.append(make("span", row.class, { title: row.class }), meter, make("span", percent(row.probability)));
    return line;
  });
  item.lastChild.replaceChildren(make("h2", `${name}, ${percent(probability)}${sure === false ? ", not sure" : ""}`), make("small", file.name), ...rows);
}

async function classify(files) {
  for (const file of files) {
    const item = make("li");
    const image = make("img", "", { src: URL.createObjectURL(file), alt: file.name });
    image.addEventListener("error", () => (image.style.visibility = "hidden")); // no image that the browser knows
    for (const name of ["load", "error"]) image.addEventListener(name, () => URL.revokeObjectURL(image.src));
    const said = make("div");
    said.append(make("h2", "…"), make("small", file.name));
    item.append(image, said);
    find("answers").prepend(item);
    try {
      show(item, file, await ask("predict", { method: "POST", body: file }));
    } catch (error) {
      said.replaceChildren(make("h2", error.message, { className: "wrong" }), make("small", file.name));
    }
  }
}

find("files").addEventListener("change", ({ target }) => {
  classify([...target.files]);
  target.value = "";
});
document.addEventListener("paste", ({ clipboardData }) => classify([...clipboardData.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") classify([...event.dataTransfer.files]);
  });
}

find("curl").textContent =
  `curl ${token ? `-H 'Authorization: Bearer ${token}' ` : ""}--data-binary @photo.png ${new URL("predict", location.href.split("#")[0])}`;

ask("model")
  .then(({ recipe, data, classes, image_size: [height, width] }) => {
    find("about").textContent = `${recipe}, trained on ${data}: ${classes.length} classes, images of ${width} x ${height}`;
  })
  .catch((error) => {
    find("trouble").textContent = error.message;
    find("trouble").hidden = false;
  });
