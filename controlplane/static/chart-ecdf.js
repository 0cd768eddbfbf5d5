// Two ECDFs of one component: reference dashed and neutral, live solid; a bar where they are furthest apart.
(() => {
  "use strict";
  davyCharts.kind("ecdf", (data, colours, { axis }) => {
    const [x, below, above] = data.at;
    const line = (name, points, colour, type, width) => ({
      name,
      type: "line",
      step: "end",
      symbol: "none",
      data: points,
      lineStyle: { color: colour, type, width },
      itemStyle: { color: colour },
    });
    return {
      legend: { bottom: 0, left: 0, icon: "roundRect", itemHeight: 3, itemWidth: 22, textStyle: { color: colours.ink, fontSize: 12 }, data: ["live", "reference"] },
      grid: { left: 40, right: 16, top: 14, bottom: 52 },
      xAxis: axis(colours, { type: "value", scale: true, splitLine: { show: false } }),
      yAxis: axis(colours, { type: "value", min: 0, max: 1, interval: 0.25 }),
      series: [
        line("reference", data.reference, colours.reference, "dashed", 2),
        line("live", data.live, colours.current, "solid", 2),
        {
          name: "D",
          type: "line",
          data: [[x, below], [x, above]],
          symbol: "none",
          lineStyle: { color: colours.limit, width: 3 },
          itemStyle: { color: colours.limit },
          endLabel: { show: true, formatter: `D = ${data.d.toFixed(3).replace(/^0/, "")}`, color: colours.limit, fontSize: 12, fontWeight: 600 },
          tooltip: { show: false },
          z: 5,
        },
      ],
    };
  });
})();
