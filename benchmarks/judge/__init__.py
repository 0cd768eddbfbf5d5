"""How often is the judge wrong, how soon is it right, and what does it cost? A simulator around the real judge.

    python -m benchmarks.judge --out docs/measurements/judge.csv [--only NAME …] [--runs N] [--seed S]

weather (what both arms suffer alike) → traffic (what the arms count) → course (one rollout through the real judge
and the real phases) → figures (rates and quantiles with their limits) → the rows of the table.
"""
