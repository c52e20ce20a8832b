"""Multilevel models on any grouped data: arrays and formulas in, frozen results out."""

from send_va.multilevel.area import AreaFit, fit_area
from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.gaussian import GaussianFit, fit_gaussian
from send_va.multilevel.glmm import fit_glmm
from send_va.multilevel.glmm_result import GlmmFit
from send_va.multilevel.ordinal import fit_ordinal

__all__ = [
    "AreaFit",
    "CrossProducts",
    "GaussianFit",
    "GlmmFit",
    "cross_products",
    "fit_area",
    "fit_gaussian",
    "fit_glmm",
    "fit_ordinal",
]
