// A p chart: share by interval, centre line and stepped limits labelled at the right; points beyond them are outlined squares.
(() => {
  "use strict";
  davyCharts.kind("control", (data, colours, { axis }) => {
    const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
    const limitLine = (name, column, words) => ({
      name,
      type: "line",
      step: "middle",
      symbol: "none",
      data: data.points.map((point) => [point[0], point[column]]),
      lineStyle: { color: colours.limit, type: "dashed", width: 1.5 },
      itemStyle: { color: colours.limit },
      endLabel: { show: true, formatter: words, color: colours.limit, fontSize: 11 },
    });
    return {
      grid: { left: 48, right: 56, top: 14, bottom: 28 },
      xAxis: axis(colours, { type: "time", minInterval: 60000, splitLine: { show: false }, axisLabel: { color: colours.muted, fontSize: 11, hideOverlap: true, formatter: "{HH}:{mm}" } }),
      yAxis: axis(colours, { type: "value", scale: true, splitNumber: 4, axisLabel: { color: colours.muted, fontSize: 11, formatter: percent } }),
      series: [
        limitLine("upper limit", 3, "upper"),
        limitLine("lower limit", 2, "lower"),
        {
          name: "centre",
          type: "line",
          symbol: "none",
          data: data.points.map((point) => [point[0], data.center]),
          lineStyle: { color: colours.reference, width: 1 },
          itemStyle: { color: colours.reference },
          endLabel: { show: true, formatter: "centre", color: colours.muted, fontSize: 11 },
        },
        {
          name: "share below .6",
          type: "line",
          data: data.points.map(([at, share, , , , outside]) => ({
            value: [at, share],
            symbol: outside ? "rect" : "circle",
            symbolSize: data.points.length > 60 ? (outside ? 5 : 2) : outside ? 8 : 4,
            itemStyle: outside ? { color: colours.surface, borderColor: colours.limit, borderWidth: 1.5 } : { color: colours.current },
          })),
          lineStyle: { color: colours.current, width: 1.5 },
          itemStyle: { color: colours.current },
          z: 4,
        },
      ],
      tooltip: {
        trigger: "axis",
        renderMode: "richText",
        backgroundColor: colours.surface,
        borderColor: colours.line,
        textStyle: { color: colours.ink, fontSize: 12 },
        formatter: ([first]) => {
          const [at, share, lower, upper, n] = data.points[first.dataIndex];
          const time = new Date(at).toISOString().slice(11, 19);
          return `${time} UTC\n${percent(share)}, limits ${percent(lower)} to ${percent(upper)}\nn = ${n.toLocaleString("en")}`;
        },
      },
      useUTC: true,
    };
  });
})();
