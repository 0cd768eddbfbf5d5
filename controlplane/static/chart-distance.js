// Largest distance from the reference by minute, against the alarm's two lines; hollow where there are too few rows.
(() => {
  "use strict";
  davyCharts.kind("distance", (data, colours, { axis, limit }) => {
    const alarm = limit(colours, data.drifted_above, `alarm above ${String(data.drifted_above).replace(/^0/, "")}`);
    const over = {
      yAxis: data.stable_below,
      lineStyle: { color: colours.reference, type: "dotted" },
      label: { formatter: `over below ${String(data.stable_below).replace(/^0/, "")}`, color: colours.muted, position: "insideStartBottom", fontWeight: 400 },
    };
    const most = Math.max(data.drifted_above, ...data.points.map((point) => point[1]));
    return {
      grid: { left: 40, right: 16, top: 14, bottom: 28 },
      xAxis: axis(colours, { type: "time", minInterval: 60000, splitLine: { show: false }, axisLabel: { color: colours.muted, fontSize: 11, hideOverlap: true, formatter: "{HH}:{mm}" } }),
      yAxis: axis(colours, { type: "value", min: 0, max: Math.min(1, Math.ceil(most * 12) / 10), splitNumber: 4 }),
      series: [
        {
          name: "largest D",
          type: "line",
          data: data.points.map(([at, d, n]) => ({
            value: [at, d, n],
            itemStyle: n < data.enough ? { color: colours.surface, borderColor: colours.current, borderWidth: 1.5 } : { color: colours.current },
            symbol: d > data.drifted_above ? "rect" : "circle",
          })),
          symbolSize: 7,
          lineStyle: { color: colours.current, width: 2 },
          markLine: { ...alarm, data: [...alarm.data, over] },
        },
      ],
      tooltip: {
        trigger: "axis",
        renderMode: "richText",
        backgroundColor: colours.surface,
        borderColor: colours.line,
        textStyle: { color: colours.ink, fontSize: 12 },
        formatter: ([point]) =>
          `${new Date(point.value[0]).toISOString().slice(11, 16)} UTC\nD = ${point.value[1].toFixed(3)}\nn = ${point.value[2].toLocaleString("en")}`,
      },
      useUTC: true,
    };
  });
})();
