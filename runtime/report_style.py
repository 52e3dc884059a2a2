"""The style of a report's page: readable in light and in dark, on a wide screen and on a narrow one."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f7f6f3; --card: #ffffff; --ink: #1c1b19; --soft: #6a665e; --line: #e2dfd8;
  --fused: #0f766e; --plain: #b9b4a8;
  --contraction: #b45309; --window: #7c3aed; --pointwise: #2563eb; --reduction: #be185d;
  --movement: #4d7c0f; }
@media (prefers-color-scheme: dark) { :root {
  --page: #161614; --card: #1f1e1c; --ink: #ece9e2; --soft: #a09b90; --line: #35332f;
  --fused: #2dd4bf; --plain: #6f6a60;
  --contraction: #f59e0b; --window: #a78bfa; --pointwise: #60a5fa; --reduction: #f472b6;
  --movement: #a3e635; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .8rem; }
.soft { color: var(--soft); } .small { font-size: .82rem; }
code, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .88em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .9rem;
  margin-top: 1.6rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem; }
.card strong { display: block; font-size: 1.4rem; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.pair { display: grid; grid-template-columns: 3.6rem 1fr 4.4rem; gap: .25rem .6rem; align-items: center;
  margin-top: .6rem;
  font-size: .82rem; font-variant-numeric: tabular-nums; }
.card .pair { grid-template-columns: 3.2rem 1fr auto; }
.pair > :nth-child(3n) { text-align: right; }
.bars .pair > :nth-child(3n) { text-align: inherit; }
.bars .pair > :nth-child(3n + 1):not(:first-child) { text-align: right; }
.bar { display: flex; height: .8rem; gap: 1px; min-width: 2px; border-radius: 2px; overflow: hidden; }
.bar i { display: block; min-width: 2px; height: 100%; }
.fused { background: var(--fused); } .plain { background: var(--plain); }
.contraction { background: var(--contraction); } .window { background: var(--window); }
.pointwise { background: var(--pointwise); } .reduction { background: var(--reduction); }
.movement { background: var(--movement); }
.kernel { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1.1rem 1rem;
  margin-bottom: .7rem; }
.kernel header { display: flex; flex-wrap: wrap; gap: .1rem 1rem; align-items: baseline; }
.kernel header > :first-child { flex: 1 1 24rem; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: .3rem 2rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .8rem; font-size: .82rem; }
.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin-right: .4rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: .9rem;
  align-items: start; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .7rem .8rem .3rem; }
th, td { padding: .32rem .4rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); border-top: 0; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 7rem; padding-left: .8rem; }
th:last-child, td:last-child { padding-right: .8rem; }
tfoot td { font-weight: 600; }
.arena { display: block; width: 100%; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.arena rect { fill: var(--fused); fill-opacity: .55; stroke: var(--card); stroke-width: 1; }
.arena g:hover rect { fill-opacity: .9; }
.arena text { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: var(--ink); pointer-events: none; }
@media (max-width: 36rem) { .sides, .bars { grid-template-columns: 1fr; } }
"""
