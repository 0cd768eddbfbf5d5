// Evidence of a rollout: above, log e against the canary (all gates combined, and each); below, for it in each step.
(() => {
  "use strict";
  const dashes = ["solid", "dashed", "dotted"];
  const symbols = ["circle", "rect", "triangle", "diamond"];

  davyCharts.kind("evidence", (data, colours, { axis, limit }) => {
    const palette = [colours.third, colours.fourth, colours.reference];
    const lineOf = (name, points, grid, i, more) => ({
      name,
      type: "line",
      xAxisIndex: grid,
      yAxisIndex: grid,
      data: points,
      step: "end",
      showSymbol: points.length < 40,
      symbol: symbols[i % symbols.length],
      symbolSize: 5,
      lineStyle: { width: 1.5, color: palette[i % palette.length], type: dashes[i % dashes.length] },
      itemStyle: { color: palette[i % palette.length] },
      ...more,
    });
    const moments = {
      silent: true,
      symbol: "none",
      lineStyle: { color: colours.line, type: "solid", width: 1 },
      label: { color: colours.muted, fontSize: 10, rotate: 0, position: "end", formatter: (point) => point.name },
      data: data.events.map(([at, words]) => ({ xAxis: at, name: words.replace("_", " ") })),
    };
    const against = limit(colours, data.rollback_line, `roll back at ${data.rollback_line.toFixed(2)}`);
    const passes = limit(colours, data.promote_line, `pass at ${data.promote_line.toFixed(2)}`);
    passes.lineStyle = { ...passes.lineStyle, color: colours.third };
    passes.label = { ...passes.label, color: colours.third };

    const combined = lineOf("all gates", data.combined, 0, 0, {
      lineStyle: { width: 2.5, color: colours.current },
      itemStyle: { color: colours.current },
      showSymbol: data.combined.length < 2,
      z: 5,
      markLine: against,
    });
    const moment = { name: "moments", type: "line", data: [], markLine: moments, silent: true, tooltip: { show: false } };
    const series = [combined, moment];
    data.gates.forEach((gate, i) => {
      series.push(lineOf(gate.name, gate.fail, 0, i));
      series.push(lineOf(gate.name, gate.pass, 1, i, i === 0 ? { markLine: passes } : {}));
    });

    const times = data.gates.flatMap((gate) => [...gate.fail, ...gate.pass].map((point) => point[0]));
    const moments_at = data.events.map((event) => event[0]);
    const span = { min: Math.min(...times, ...moments_at), max: Math.max(...times) };
    const highest = (key) => Math.max(1, ...data.gates.flatMap((gate) => gate[key].map((point) => point[1])));
    // Beyond three times its line a process is decided: it may leave the chart, so that the line stays readable.
    const top = (key, line) => Math.ceil(Math.min(3 * line, Math.max(line * 1.25, highest(key) * 1.08)));
    return {
      legend: {
        bottom: 0,
        left: 0,
        itemWidth: 22,
        textStyle: { color: colours.ink, fontSize: 12 },
        data: ["all gates", ...data.gates.map((gate) => gate.name)],
      },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      grid: [
        { left: 44, right: 12, top: 24, height: "38%" },
        { left: 44, right: 12, top: "56%", height: "28%" },
      ],
      xAxis: [0, 1].map((grid) =>
        axis(colours, {
          type: "time",
          gridIndex: grid,
          ...span,
          splitLine: { show: false },
          axisLabel: { color: colours.muted, fontSize: 11, hideOverlap: true, show: grid === 1, formatter: "{HH}:{mm}:{ss}" },
        })
      ),
      yAxis: [
        axis(colours, { gridIndex: 0, name: "against", nameLocation: "middle", nameGap: 30, min: (v) => Math.max(-3, Math.floor(v.min)), max: top("fail", data.rollback_line), splitNumber: 3 }),
        axis(colours, { gridIndex: 1, name: "for", nameLocation: "middle", nameGap: 30, min: (v) => Math.max(-3, Math.floor(v.min)), max: top("pass", data.promote_line), splitNumber: 3 }),
      ],
      series,
      useUTC: true,
    };
  });
})();
