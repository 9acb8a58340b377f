"""Meters in ONOS's JSON: what users send, checked and made into OpenFlow; meters of switches in ONOS's words.
Pure: asks nobody.
"""

from __future__ import annotations

from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.ofctl_json import record
from topology.controller.onos_words import boolean, device_id
from topology.controller.refused import bad_value, list_of, object_of, only_keys, shown, whole_number

MAXIMUM_BANDS = 8
_METER_KEYS = frozenset(("id", "deviceId", "unit", "burst", "bands", "appId"))
_BAND_KEYS = frozenset(("type", "rate", "burstSize", "prec"))
_UNITS = {"KB_PER_SEC": ofp.OFPMF_KBPS, "PKTS_PER_SEC": ofp.OFPMF_PKTPS}


def meter_message(body: dict[str, Any], device: int, number: int) -> Any:
    """The OpenFlow message that adds a meter of ONOS's JSON under that number: rates in kbit/s or packet/s,
    bursts in kbit or packets (one second of the rate where `burst` is true and no size is given).

    Raises:
        Refused: 400.
    """
    only_keys(body, _METER_KEYS)
    if "deviceId" in body and body["deviceId"] != device_id(device):
        raise bad_value(
            "deviceId", f"deviceId is {shown(body['deviceId'])}", f"here it is {device_id(device)}"
        )
    unit = body.get("unit")
    if not isinstance(unit, str) or unit not in _UNITS:
        raise bad_value("unit", f"unit is {shown(unit)}", f"one of {', '.join(_UNITS)}")
    burst = boolean(body.get("burst", False), "burst")
    bands: list[Any] = []
    for index, entry in enumerate(list_of(body.get("bands"), "bands", MAXIMUM_BANDS)):
        path = f"bands[{index}]"
        band = object_of(entry, path)
        only_keys(band, _BAND_KEYS, path)
        rate = whole_number(band.get("rate"), f"{path}.rate", 1, 0xFFFFFFFF)
        size = whole_number(band.get("burstSize", rate if burst else 0), f"{path}.burstSize", 0, 0xFFFFFFFF)
        size = (size or rate) if burst else 0
        if band.get("type") == "DROP":
            bands.append(parser.OFPMeterBandDrop(rate, size))
        elif band.get("type") == "REMARK":
            level = whole_number(band.get("prec"), f"{path}.prec", 0, 255)
            bands.append(parser.OFPMeterBandDscpRemark(rate, size, level))
        else:
            raise bad_value(f"{path}.type", f"{path}.type is {shown(band.get('type'))}", "DROP or REMARK")
    if not bands:
        raise bad_value("bands", "the meter has no band", 'such as [{"type": "DROP", "rate": 1000}]')
    flags = _UNITS[unit] | ofp.OFPMF_STATS | (ofp.OFPMF_BURST if burst else 0)
    return record(
        lambda recorder: recorder.send_msg(parser.OFPMeterMod(recorder, ofp.OFPMC_ADD, flags, number, bands)),
        "meter",
    )


def meter_shown(device: int, configuration: Any, statistics: Any, application: str) -> dict[str, Any]:
    """A meter in ONOS's words, from its configuration and its statistics (None: not counted yet)."""
    counted = list(statistics.band_stats) if statistics is not None else []
    bands = []
    for index, band in enumerate(configuration.bands):
        count = counted[index] if index < len(counted) else None
        shown_band = {
            "type": "DROP" if band.type == ofp.OFPMBT_DROP else "REMARK",
            "rate": band.rate,
            "packets": count.packet_band_count if count else 0,
            "bytes": count.byte_band_count if count else 0,
            "burstSize": band.burst_size,
        }
        if band.type == ofp.OFPMBT_DSCP_REMARK:
            shown_band["prec"] = band.prec_level
        bands.append(shown_band)
    return {
        "id": str(configuration.meter_id),
        "life": statistics.duration_sec if statistics is not None else 0,
        "packets": statistics.packet_in_count if statistics is not None else 0,
        "bytes": statistics.byte_in_count if statistics is not None else 0,
        "referenceCount": statistics.flow_count if statistics is not None else 0,
        "unit": "KB_PER_SEC" if configuration.flags & ofp.OFPMF_KBPS else "PKTS_PER_SEC",
        "burst": bool(configuration.flags & ofp.OFPMF_BURST),
        "deviceId": device_id(device),
        "appId": application,
        "state": "ADDED",
        "bands": bands,
    }
