"use strict";
(async () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const unpacked = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream);
  };

  // A trace is passed to Perfetto by a message to its window, which answers PONG as soon as it listens.
  const hand = (buffer, title) => {
    const origin = "https://ui.perfetto.dev";
    const other = window.open(origin);
    if (!other) return;
    const timer = setInterval(() => other.postMessage("PING", origin), 50);
    const heard = (event) => {
      if (event.source !== other || event.data !== "PONG") return;
      clearInterval(timer);
      window.removeEventListener("message", heard);
      other.postMessage({ perfetto: { buffer, title, fileName: "trace.json" } }, origin);
    };
    window.addEventListener("message", heard);
  };
  for (const box of document.querySelectorAll(".trace")) {
    box.querySelector(".with-script").hidden = false;
    const packed = box.querySelector("script"), file = box.querySelector("input");
    file.addEventListener("change", async () => {
      if (file.files.length) hand(await file.files[0].arrayBuffer(), box.dataset.title);
    });
    box.querySelector(".perfetto").addEventListener("click", async (event) => {
      event.preventDefault();
      if (packed) hand(await (await unpacked(packed.textContent)).arrayBuffer(), box.dataset.title);
      else file.click();
    });
  }

  // Colours are names of the style sheet's variables until here.
  const colored = (value, key = "") => {
    if (Array.isArray(value)) return value.map((each) => colored(each, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, colored(each, name)]));
    const named = typeof value === "string" && key.endsWith("color") && value.match(/^var\((--[\w-]+)\)$/);
    return named ? getComputedStyle(document.documentElement).getPropertyValue(named[1]).trim() : value;
  };
  // The legend is below the axis' title, in as many rows as the width needs; the area of the plot stays as it is.
  const sized = (data, layout, width) => {
    const names = layout.showlegend ? data.filter((each) => each.showlegend).map((each) => each.name.length) : [];
    const columns = Math.max(1, Math.floor((width - 60) / (46 + 7.2 * Math.max(0, ...names))));
    const rows = Math.ceil(names.length / columns), area = layout.height - 100;
    return { ...layout, height: layout.height + (rows ? 14 + 20 * rows : 0), legend: { ...layout.legend, y: -62 / area } };
  };
  const figures = [...document.querySelectorAll("figure")].map((figure) => ({
    plot: figure.querySelector(".plot"),
    picture: figure.querySelector("svg.static"),
    stated: JSON.parse(figure.querySelector("script").textContent),
  }));
  const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const draw = async () => {
    for (const each of figures) {
      const { data, layout } = colored(each.stated);
      each.plot.hidden = false;
      await Plotly.react(each.plot, data, sized(data, layout, each.plot.clientWidth), options);
      each.picture.style.display = "none";
      each.picture.setAttribute("aria-hidden", "true");
    }
    document.documentElement.dataset.drawn = figures.length;
  };

  const library = document.getElementById("library");
  if (library.type === "application/octet-stream") {
    if (typeof DecompressionStream === "undefined") return;
    const script = document.createElement("script");
    script.textContent = await (await unpacked(library.textContent)).text();
    document.head.append(script);
  }
  if (typeof Plotly === "undefined") return;
  for (const note of document.querySelectorAll(".without-script")) note.hidden = true;
  await draw();
  dark.addEventListener("change", draw);
})();
