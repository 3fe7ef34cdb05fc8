"""STUB until wtB merges"""

import numpy as np

SIGNATURES = {"sharpness_fine": ("sharpness", 1.0)}


def failure_signatures(photographs, painted):
    return {"sharpness_fine": np.ones(len(photographs))}
