"""Tracer kinetics in one place: forward models, fits and their results."""

from bids_app.analyses.leakage.model.arterial_delay import DelayedFit, fit_with_delay
from bids_app.analyses.leakage.model.exchange_fit import fit_2cxm
from bids_app.analyses.leakage.model.fit_results import (
    ExchangeFit,
    ExtendedToftsFit,
    PatlakFit,
    ToftsFit,
    UptakeFit,
)
from bids_app.analyses.leakage.model.linear_exchange_fits import fit_2cum_linear, fit_2cxm_linear
from bids_app.analyses.leakage.model.linear_fits import (
    fit_extended_tofts_linear,
    fit_patlak,
    fit_tofts_linear,
)
from bids_app.analyses.leakage.model.nonlinear_fits import (
    fit_2cum,
    fit_extended_tofts,
    fit_tofts,
)
from bids_app.analyses.leakage.model.tissue_models import (
    cumulative_integral,
    exponential_convolution,
    extended_tofts,
    patlak,
    shift_plasma,
    tofts,
    two_compartment_exchange,
    two_compartment_uptake,
)

__all__ = [
    'DelayedFit',
    'ExchangeFit',
    'ExtendedToftsFit',
    'PatlakFit',
    'ToftsFit',
    'UptakeFit',
    'cumulative_integral',
    'exponential_convolution',
    'extended_tofts',
    'fit_2cum',
    'fit_2cum_linear',
    'fit_2cxm',
    'fit_2cxm_linear',
    'fit_extended_tofts',
    'fit_extended_tofts_linear',
    'fit_patlak',
    'fit_tofts',
    'fit_tofts_linear',
    'fit_with_delay',
    'patlak',
    'shift_plasma',
    'tofts',
    'two_compartment_exchange',
    'two_compartment_uptake',
]
