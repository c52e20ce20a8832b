"""Multilevel models on any grouped data: arrays and formulas in, frozen results out."""

from send_va.multilevel.area import AreaFit, fit_area
from send_va.multilevel.crossproducts import CrossProducts, cross_products
from send_va.multilevel.gaussian import GaussianFit, fit_gaussian

__all__ = ["AreaFit", "CrossProducts", "GaussianFit", "cross_products", "fit_area", "fit_gaussian"]
