
"use strict";
(async () => {
  const BINS = 20;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { height, width, rows, columns, extent, transform, meters, decimals } = data;
  const classes = new Map(data.classes.map((c) => [c.code, c]));
  const shown = new Set(classes.keys());
  const find = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");

  // Bytes of the page itself, not pixels read back from a canvas: browsers that guard against fingerprinting alter those.
  async function inflate(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Column x and row y of the scene's pixels lie at longitude x, latitude -y: any CRS, and rotated grids, fit.
  const point = (x, y) => L.latLng(-y, x);
  const box = (left, top, right, bottom) => L.latLngBounds(point(left, bottom), point(right, top));
  const scene = box(0, 0, width, height);

  function makeMap() {
    const distance = (a, b) => Math.hypot((a.lng - b.lng) * meters[0], (a.lat - b.lat) * meters[1]);
    const map = L.map("map", {
      crs: L.extend({}, L.CRS.Simple, { distance }), attributionControl: false, zoomSnap: 0,
      minZoom: -12, maxZoom: 4, maxBoundsViscosity: 0.8,
    });
    L.control.scale({ imperial: false, maxWidth: 140 }).addTo(map);
    const fit = () => map.fitBounds(scene, { padding: [12, 12], animate: false });
    const bound = () => map.setMinZoom(map.getBoundsZoom(scene) - 1).setMaxBounds(scene.pad(0.5));
    fit();
    bound();
    // Until the reader moves the map, it shows the whole scene at any size of the window, also when a phone is turned.
    let moved = false;
    for (const event of ["pointerdown", "wheel", "keydown"]) {
      map.getContainer().addEventListener(event, () => { moved = true; }, { capture: true, passive: true });
    }
    map.on("resize", () => { bound(); if (!moved) fit(); });
    find("whole").addEventListener("click", () => { moved = false; fit(); });
    // A printed sheet has another width; afterwards the view on the screen is restored.
    let before;
    addEventListener("beforeprint", () => { before = [map.getCenter(), map.getZoom()]; });
    matchMedia("print").addEventListener("change", (sheet) => {
      map.invalidateSize({ animate: false });
      if (sheet.matches) fit(); else if (before) map.setView(...before, { animate: false });
    });
    return map;
  }

  function makeCells(map, codes) {
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    // The last row and column of cells may reach beyond the scene: cut there.
    const [right, bottom] = [1 - width / extent[0], 1 - height / extent[1]].map((share) => `${100 * share}%`);
    canvas.style.clipPath = `inset(0 ${right} ${bottom} 0)`;
    // Leaflet documents this overlay for SVG elements, but it takes any element.
    const overlay = L.svgOverlay(canvas, box(0, 0, ...extent), { className: "cells" }).addTo(map);
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const pixels = new DataView(image.data.buffer);
    function draw() {
      const palette = new Uint32Array(256);
      for (const code of shown) palette[code] = parseInt(`${classes.get(code).color.slice(1)}ff`, 16);
      for (let i = 0; i < codes.length; i++) pixels.setUint32(4 * i, palette[codes[i]]);
      context.putImageData(image, 0, 0);
    }
    draw();
    return { overlay, draw };
  }

  function makeReadout(map, codes, confidence) {
    const readout = find("readout");
    const [swatch, name, percent, position] = readout.children;
    const outline = L.rectangle(scene, { className: "outline", color: "#fff", weight: 2, fill: false, interactive: false });
    const [a, b, c, d, e, f] = transform;
    function clear() {
      outline.remove();
      readout.classList.add("hint");
      name.textContent = "Point at a cell, or tap it";
      percent.textContent = "";
      position.textContent = data.crs;
    }
    function show({ latlng: { lat, lng: x } }) {
      const y = -lat;
      if (!(x >= 0 && y >= 0 && x < width && y < height)) return clear();
      const column = Math.floor((x * columns) / extent[0]);
      const row = Math.floor((y * rows) / extent[1]);
      const cell = row * columns + column;
      const known = classes.get(codes[cell]);
      readout.classList.remove("hint");
      swatch.style.background = known ? known.color : "";
      swatch.classList.toggle("hatched", !known);
      name.textContent = known ? known.name : "No data";
      percent.textContent = confidence[cell] > 100 ? "" : `confidence ${confidence[cell]}%`;
      position.textContent = `${(a * x + b * y + c).toFixed(decimals)}, ${(d * x + e * y + f).toFixed(decimals)}`;
      const [wide, high] = [extent[0] / columns, extent[1] / rows];
      outline.setBounds(box(column * wide, row * high, Math.min((column + 1) * wide, width),
        Math.min((row + 1) * high, height))).addTo(map);
    }
    clear();
    map.on("mousemove click", show); // what was read last stays when the pointer leaves the map
  }

  function drawHistogram() {
    const [ticks, svg] = find("histogram").children;
    const parts = data.classes.filter((c) => shown.has(c.code));
    const heights = Array.from({ length: BINS }, (_, bin) => parts.reduce((sum, c) => sum + c.bins[bin], 0));
    const top = Math.max(...heights, 1);
    const bars = [];
    heights.forEach((_, bin) => {
      let y = 100;
      for (const c of parts.filter((c) => c.bins[bin])) {
        const bar = document.createElementNS(svg.namespaceURI, "rect");
        const high = (100 * c.bins[bin]) / top;
        y -= high;
        for (const [key, value] of Object.entries({ x: bin + 0.06, y, width: 0.88, height: high, fill: c.color })) {
          bar.setAttribute(key, value);
        }
        const title = document.createElementNS(svg.namespaceURI, "title");
        title.textContent = `${c.name}, ${bin * 5} to ${bin * 5 + 5}%: ${number.format(c.bins[bin])} cells`;
        bar.append(title);
        bars.push(bar);
      }
    });
    svg.replaceChildren(...bars);
    const power = 10 ** Math.floor(Math.log10(top));
    const step = [0.2, 0.5, 1, 2, 5].map((s) => s * power).find((s) => s >= 1 && top / s <= 5) ?? 1;
    const lines = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => {
      const line = document.createElement("span");
      line.style.bottom = `${(100 * i * step) / top}%`;
      line.append(Object.assign(document.createElement("i"), { textContent: number.format(i * step) }));
      return line;
    });
    ticks.replaceChildren(...lines);
  }

  function bindLegend(redraw) {
    const buttons = [...find("legend").querySelectorAll("button")];
    function set(button, on) {
      button.setAttribute("aria-pressed", on);
      shown[on ? "add" : "delete"](Number(button.dataset.code));
    }
    const listed = () => buttons.filter((button) => !button.parentElement.hidden);
    function bind(element, change) {
      element.addEventListener("click", () => { change(); redraw(); });
    }
    for (const button of buttons) bind(button, () => set(button, button.getAttribute("aria-pressed") !== "true"));
    bind(find("all"), () => listed().forEach((button) => set(button, true)));
    bind(find("none"), () => listed().forEach((button) => set(button, false)));
    find("filter")?.addEventListener("input", ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      for (const button of buttons) {
        button.parentElement.hidden = !classes.get(Number(button.dataset.code)).name.toLowerCase().includes(wanted);
      }
    });
  }

  function bindOpacity(overlay) {
    const slider = find("opacity");
    function apply() {
      overlay.setOpacity(slider.value / 100);
      find("opacity-value").textContent = `${slider.value}%`;
    }
    slider.addEventListener("input", apply);
    apply();
  }

  drawHistogram();
  try {
    const bytes = await inflate(data.cells);
    const codes = bytes.subarray(0, rows * columns);
    const confidence = bytes.subarray(rows * columns);
    find("message").remove();
    const map = makeMap();
    L.imageOverlay(data.picture, scene, { className: "scene hatched" }).addTo(map);
    const { overlay, draw } = makeCells(map, codes);
    makeReadout(map, codes, confidence);
    bindOpacity(overlay);
    bindLegend(() => { draw(); drawHistogram(); });
  } catch (error) {
    find("map").textContent = "This browser is too old to show the map; any of 2023 or later does.";
    throw error;
  }
})();
