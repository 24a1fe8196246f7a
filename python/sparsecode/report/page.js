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

  // Whether the cells of a heat map are wide enough for their numbers, beside the names of its rows.
  function roomy(plot, spec, trace) {
    const rows = spec.layout[(trace.yaxis || "y").replace("y", "yaxis")].ticktext || [];
    const names = 6.5 * Math.max(0, ...rows.map((name) => name.length));
    return (plot.clientWidth - 70 - names) / trace.x.length > 30;
  }

  async function drawAll() {
    const colors = getComputedStyle(document.documentElement);
    for (const plot of document.querySelectorAll(".plot")) {
      const spec = themed(specs[plot.dataset.figure], colors);
      spec.data.forEach((trace) => trace.type === "heatmap" && !roomy(plot, spec, trace) && delete trace.texttemplate);
      spec.layout.height = parseFloat(plot.style.minHeight);
      await window.Plotly.react(plot, spec.data, spec.layout, { responsive: true, displayModeBar: false });
    }
    document.documentElement.dataset.drawn = "yes";
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
