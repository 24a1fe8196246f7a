"use strict";
(async () => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const packed = document.getElementById("plotly");
  if (!packed) return;
  try {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
    await drawAll();
  } catch (error) {
    document.getElementById("no-figures").hidden = false;
    document.querySelectorAll(".plot").forEach((plot) => plot.remove());
    throw error;
  }

  // Names such as "@series1" become the colours of the current theme.
  function themed(value, colors) {
    if (typeof value === "string" && value.startsWith("@")) return colors.getPropertyValue("--" + value.slice(1)).trim();
    if (Array.isArray(value)) return value.map((inner) => themed(inner, colors));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, colors)]));
    return value;
  }

  async function drawAll() {
    const colors = getComputedStyle(document.documentElement);
    for (const plot of document.querySelectorAll(".plot")) {
      const spec = themed(specs[plot.dataset.figure], colors);
      if (plot.clientWidth < 520) spec.data.forEach((trace) => trace.type === "heatmap" && trace.x.length > 6 && delete trace.texttemplate);
      spec.layout.height = parseFloat(plot.style.minHeight);
      await window.Plotly.react(plot, spec.data, spec.layout, { responsive: true, displayModeBar: false });
    }
    document.documentElement.dataset.drawn = "yes";
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
