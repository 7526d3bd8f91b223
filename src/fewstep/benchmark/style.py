"""How the page looks, in light and in dark; the colours of samplers are those of Okabe and Ito (2008), or near them."""

from __future__ import annotations

STYLE = """
:root { --paper: #ffffff; --ink: #1b1f24; --faint: #59636e; --pale: #e4e8ec; --box: #f2f4f7;
  --best: #1b1f24; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #c15a94; --c4: #b97f00; --c5: #3a8fc4;
  --c6: #7048a8; --c7: #7f7f7f }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #dfe3e8; --faint: #9aa4af; --pale: #2b323a; --box: #1f2730; --best: #f5f7fa;
    --c0: #4aa8e0; --c1: #f0803c; --c2: #2fc79a; --c3: #e08fbb; --c4: #e6b03a; --c5: #8accf2; --c6: #ab8ae0;
    --c7: #a5a5a5 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--paper); color: var(--ink) }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
p { max-width: 60rem } .verdict { background: var(--box); border-left: 4px solid var(--c0); padding: .7rem 1rem }
code, pre { background: var(--box); padding: .1rem .3rem; border-radius: 3px }
pre { padding: .7rem; overflow-x: auto; font-size: 13px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
figure { margin: 0 } svg { width: 100%; height: auto } svg text { font-size: 12px; fill: var(--faint) }
.grid { stroke: var(--pale); fill: none } .axis { stroke: var(--faint); fill: none }
.line { fill: none; stroke: var(--own); stroke-width: 1; opacity: .45 } .broken { stroke-dasharray: 5 3 }
.mark { fill: var(--own); stroke: var(--own); stroke-width: 1.2 } .hollow { fill: var(--paper) }
.front { fill: none; stroke: var(--best); stroke-width: 1.6; stroke-dasharray: 2 3 }
.ring { fill: none; stroke: var(--best); stroke-width: 1.4 } .bar { stroke: var(--best); stroke-width: 1; opacity: .6 }
.c0 { --own: var(--c0) } .c1 { --own: var(--c1) } .c2 { --own: var(--c2) } .c3 { --own: var(--c3) }
.c4 { --own: var(--c4) } .c5 { --own: var(--c5) } .c6 { --own: var(--c6) } .c7 { --own: var(--c7) }
.plain { --own: var(--faint) }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; margin: .4rem 0 }
.sign { width: 14px; height: 14px; margin-right: .35rem; vertical-align: -2px }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 14px }
td, th { text-align: left; padding: .25rem .9rem .25rem 0; white-space: nowrap }
th { border-bottom: 1px solid var(--faint); font-weight: 600 } tr + tr td { border-top: 1px solid var(--pale) }
td.n { text-align: right; font-variant-numeric: tabular-nums } small { color: var(--faint) }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: .8rem 1.2rem }
.strips img { max-width: 100%; image-rendering: pixelated } figcaption { font-size: 13px; color: var(--faint) }
summary { cursor: pointer }
"""
