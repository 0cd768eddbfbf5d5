// Histogram of live confidences (filled) against the reference (dashed steps); the unsure band is shaded.
(() => {
  "use strict";
  davyCharts.kind("confidence", (data, colours, { axis }) => {
    const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
    const at = (shares) => shares.map((share, i) => [(i + 0.5) / 100, share]);
    return {
      legend: { bottom: 0, left: 0, itemHeight: 8, itemWidth: 22, textStyle: { color: colours.ink, fontSize: 12 } },
      grid: { left: 48, right: 16, top: 24, bottom: 52 },
      xAxis: axis(colours, { type: "value", min: 0, max: 1, interval: 0.1, splitLine: { show: false }, axisLabel: { color: colours.muted, fontSize: 11, formatter: (v) => (v === 0 || v === 1 ? String(v) : v.toFixed(1).replace(/^0/, "")) } }),
      yAxis: axis(colours, { type: "value", splitNumber: 4, axisLabel: { color: colours.muted, fontSize: 11, formatter: percent } }),
      series: [
        {
          name: "live",
          type: "line",
          step: "middle",
          symbol: "none",
          data: at(data.live),
          lineStyle: { color: colours.current, width: 1.5 },
          itemStyle: { color: colours.current },
          areaStyle: { color: colours.current, opacity: 0.25 },
          markArea: {
            silent: true,
            itemStyle: { color: colours.band },
            label: { color: colours.muted, fontSize: 11, position: "insideTop" },
            data: [[{ name: "unsure: .3 to .6", xAxis: data.unsure[0] }, { xAxis: data.unsure[1] }]],
          },
        },
        ...(data.reference.length
          ? [{ name: "reference", type: "line", step: "middle", symbol: "none", data: at(data.reference), lineStyle: { color: colours.reference, type: "dashed", width: 1.5 }, itemStyle: { color: colours.reference } }]
          : []),
      ],
    };
  });
})();
