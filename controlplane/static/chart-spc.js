// A control chart: points between stepped limits that are labelled at the right; phase I is shaded. A point that breaks
// a rule is an outlined square with the rule's number; one that is left out is grey and hollow; a gap breaks the line.
(() => {
  "use strict";
  davyCharts.kind("spc", (data, colours, { axis }) => {
    const points = data.points;
    const cusum = points.some((point) => point.below !== null);
    const number = (x) => {
      if (x === null) return "–";
      if (data.percent) return `${(100 * x).toPrecision(3)} %`;
      return `${Number(x.toPrecision(4))}${data.unit ? ` ${data.unit}` : ""}`;
    };
    const time = (at) => new Date(at).toISOString().slice(0, data.seconds < 86400 ? 16 : 10).replace("T", " ");
    const held = (key) => {
      let last = null; // limits go on through a gap, where nothing has an n of its own
      return points.map((point) => [point.at, (last = point[key] ?? last)]);
    };
    const line = (name, key, words, style) => ({
      name,
      type: "line",
      step: "middle",
      symbol: "none",
      data: held(key),
      lineStyle: { width: 1.5, ...style },
      itemStyle: { color: style.color },
      endLabel: { show: true, formatter: words, color: style.color, fontSize: 11 },
    });
    const beyond = (point, key) => !cusum || point[key] > point.upper || point[key] < point.lower;
    const marked = (point, key) => {
      if (point.excluded) return { symbol: "circle", symbolSize: 7, itemStyle: { color: colours.surface, borderColor: colours.muted, borderWidth: 1.5 } };
      if (!point.rules.length || !beyond(point, key)) return { symbol: "circle", symbolSize: points.length > 100 ? 3 : 5, itemStyle: { color: colours.current } };
      return {
        symbol: "rect",
        symbolSize: 9,
        itemStyle: { color: colours.surface, borderColor: colours.limit, borderWidth: 2 },
        label: { show: true, formatter: point.rules.join(", "), position: "top", color: colours.limit, fontSize: 11, fontWeight: 600 },
      };
    };
    const series = (name, key) => ({
      name,
      type: "line",
      connectNulls: false,
      data: points.map((point) => ({ value: [point.at, point[key]], ...marked(point, key) })),
      lineStyle: { color: colours.current, width: 1.5 },
      itemStyle: { color: colours.current },
      z: 4,
    });
    const phase1 = {
      silent: true,
      itemStyle: { color: colours.band, opacity: 0.6 },
      label: { color: colours.muted, fontSize: 11, position: "insideTopLeft" },
      data: data.phase1 ? [[{ name: "phase I", xAxis: data.phase1[0] }, { xAxis: data.phase1[1] }]] : [],
    };
    return {
      grid: { left: 60, right: 60, top: 24, bottom: 28 },
      xAxis: axis(colours, { type: "time", minInterval: data.seconds * 1000, splitLine: { show: false }, axisLabel: { color: colours.muted, fontSize: 11, hideOverlap: true } }),
      yAxis: axis(colours, { type: "value", scale: true, splitNumber: 5, axisLabel: { color: colours.muted, fontSize: 11, formatter: (x) => number(x) } }),
      series: [
        { ...line("upper limit", "upper", "upper", { color: colours.limit, type: "dashed" }), markArea: phase1 },
        line("lower limit", "lower", "lower", { color: colours.limit, type: "dashed" }),
        line("centre", "center", "centre", { color: colours.reference, width: 1 }),
        series(cusum ? "upper sum" : data.name, "value"),
        ...(cusum ? [{ ...series("lower sum", "below"), lineStyle: { color: colours.current, width: 1.5, type: "dotted" } }] : []),
      ],
      tooltip: {
        trigger: "axis",
        renderMode: "richText",
        backgroundColor: colours.surface,
        borderColor: colours.line,
        textStyle: { color: colours.ink, fontSize: 12 },
        formatter: ([first]) => {
          const point = points[first.dataIndex];
          if (point.value === null && !point.excluded) return `${time(point.at)} UTC\ngap: nothing was counted`;
          const rows = [`${time(point.at)} UTC`, `${number(point.value)}, limits ${number(point.lower)} to ${number(point.upper)}`];
          if (cusum) rows.push(`lower sum ${number(point.below)}`);
          rows.push(`n = ${point.n.toLocaleString("en")}`);
          if (point.excluded) rows.push(`left out: ${point.excluded}`);
          for (const rule of point.rules) rows.push(`${rule}: ${data.words[rule]}`);
          return rows.join("\n");
        },
      },
      useUTC: true,
    };
  });
})();
