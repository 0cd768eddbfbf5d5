// How is a chart drawn? Finds [data-chart], reads its JSON, asks the chart's kind for an ECharts option, and draws
// it again when the data, the theme or the width changes. Each kind is one file that calls davyCharts.kind(name, option).
(() => {
  "use strict";
  const kinds = {};

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: value("ink"),
      muted: value("muted"),
      line: value("line"),
      surface: value("surface"),
      current: value("chart-current"),
      reference: value("chart-reference"),
      limit: value("chart-limit"),
      third: value("chart-third"),
      fourth: value("chart-fourth"),
      band: value("chart-band"),
      font: getComputedStyle(document.body).fontFamily,
    };
  };

  const frame = (colours) => ({
    animation: false,
    textStyle: { fontFamily: colours.font, fontSize: 12, color: colours.ink },
    aria: { enabled: true, label: { enabled: false }, decal: { show: false } },
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      backgroundColor: colours.surface,
      borderColor: colours.line,
      textStyle: { color: colours.ink, fontFamily: colours.font, fontSize: 12 },
    },
  });

  // An axis in the page's colours; `more` is ECharts' own options.
  const axis = (colours, more) => ({
    axisLine: { lineStyle: { color: colours.line } },
    axisTick: { show: false },
    axisLabel: { color: colours.muted, fontSize: 11 },
    splitLine: { lineStyle: { color: colours.line } },
    nameTextStyle: { color: colours.muted, fontSize: 11 },
    ...more,
  });

  // A dashed limit with its words at the right end.
  const limit = (colours, value, words) => ({
    silent: true,
    symbol: "none",
    lineStyle: { color: colours.limit, type: "dashed", width: 1.5 },
    label: { formatter: words, position: "insideStartTop", color: colours.limit, fontSize: 11, fontWeight: 600 },
    data: [{ yAxis: value }],
  });

  const draw = (box) => {
    const source = document.getElementById(box.dataset.source);
    if (!source || !kinds[box.dataset.chart]) return;
    const colours = theme();
    const key = source.textContent + JSON.stringify(colours);
    if (box.davyDrawn === key) return;
    box.davyDrawn = key;
    const chart =
      echarts.getInstanceByDom(box) || echarts.init(box, null, { renderer: "svg" });
    const option = kinds[box.dataset.chart](JSON.parse(source.textContent), colours, { axis, limit });
    chart.setOption({ ...frame(colours), ...option }, { notMerge: true });
  };

  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  const widths = new ResizeObserver((entries) => {
    for (const entry of entries) echarts.getInstanceByDom(entry.target)?.resize();
  });

  window.davyCharts = {
    kind(name, option) {
      kinds[name] = option;
    },
  };
  document.addEventListener("DOMContentLoaded", () => {
    drawAll();
    document.querySelectorAll("[data-chart]").forEach((box) => widths.observe(box));
  });
  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("davy:theme", drawAll);
})();
