"""Readers of public video data sets in their own layouts, each with a drawn miniature. See `VIDEO_LAYOUTS`.

They follow the standard protocol: whole videos, frames without the object included, an object shown once, on the
first frame it is seen on. Read `clips.py` first, for what they share; a layout is one file and one row here.
"""

from __future__ import annotations

from x2roto.data.sample import PROMPT_KINDS, Layout, Layouts, PromptKind
from x2roto.data.video import (
    davis,
    footage,
    grounded,
    ref_ytvos,
    revos,
    sav,
    vgd,
    vipseg,
    vspw,
    ytvis,
    ytvos,
)

_FIRST_MASK: tuple[PromptKind, ...] = ("mask", "box", "point", "scribble")

_LAYOUTS = (
    Layout("vipseg", "VIPSeg", tuple(vipseg.SPLITS), vipseg.open_vipseg, vipseg.write_vipseg),
    Layout("vspw", "VSPW", tuple(vspw.SPLITS), vspw.open_vspw, vspw.write_vspw),
    Layout("ytvis19", "YouTube-VIS 2019", tuple(ytvis.SPLITS_19), ytvis.open_ytvis19, ytvis.write_ytvis19),
    Layout("ytvis21", "YouTube-VIS 2021", tuple(ytvis.SPLITS_21), ytvis.open_ytvis21, ytvis.write_ytvis21),
    Layout(
        "ref_ytvos", "Ref-YouTube-VOS", tuple(ref_ytvos.SPLITS), ref_ytvos.open_ref_ytvos, ref_ytvos.write_ref_ytvos
    ),
    Layout("ref_davis17", "Ref-DAVIS 2017", tuple(davis.SPLITS_17), davis.open_ref_davis17, davis.write_ref_davis17),
    Layout("davis16", "DAVIS 2016", tuple(davis.SPLITS_16), davis.open_davis16, davis.write_davis16, _FIRST_MASK),
    Layout("davis17", "DAVIS 2017", tuple(davis.SPLITS_17), davis.open_davis17, davis.write_davis17, _FIRST_MASK),
    Layout("revos", "ReVOS", tuple(revos.SPLITS), revos.open_revos, revos.write_revos),
    Layout("video_gcg", "Video-GCG", tuple(grounded.SPLITS_VIDEO), grounded.open_video_gcg, grounded.write_video_gcg),
    Layout("mevis_gcg", "MeViS-GCG", tuple(grounded.SPLITS_MEVIS), grounded.open_mevis_gcg, grounded.write_mevis_gcg),
    Layout(
        "vidstg_gcg", "VidSTG-GCG", tuple(grounded.SPLITS_VIDSTG), grounded.open_vidstg_gcg, grounded.write_vidstg_gcg
    ),
    Layout("ytvos19", "YouTube-VOS 2019", tuple(ytvos.SPLITS), ytvos.open_ytvos19, ytvos.write_ytvos19, _FIRST_MASK),
    Layout("yt19_vgd", "YT19-VGD", (*vgd.YT19, "chunks"), vgd.open_yt19_vgd, vgd.write_yt19_vgd, PROMPT_KINDS),
    Layout(
        "vipseg_vgd", "VIPSeg-VGD", (*vgd.VIPSEG, "chunks"), vgd.open_vipseg_vgd, vgd.write_vipseg_vgd, PROMPT_KINDS
    ),
    Layout("sa_v", "SA-V", tuple(sav.FOLDERS), sav.open_sa_v, sav.write_sa_v, _FIRST_MASK),
    Layout("footage", "Footage", footage.SPLITS, footage.open_footage, footage.write_footage, footage.PROMPTS),
)
VIDEO_LAYOUTS: Layouts = {layout.name: layout for layout in _LAYOUTS}
