"""What series are: protocols as the three large makers write them, and what is set aside."""

from __future__ import annotations

import pytest
from pydicom.uid import generate_uid

from bids_app.inputs.dicom.classify import LIMIT, classify_study

from .scanner import FLAIR, HEAD_CT, MPRAGE, SPGR, T2, Scan, Study, stacks_of


def protocol(description, sequence, variant, tr, te, ti=None, flip=90.0, **more):
    """Make the parameters of a series as scanners write them."""
    return {
        'SeriesDescription': description, 'ScanningSequence': sequence,
        'SequenceVariant': variant, 'RepetitionTime': tr, 'EchoTime': te, 'InversionTime': ti,
        'FlipAngle': flip, 'MRAcquisitionType': '2D', 'ProtocolName': None, **more,
    }  # fmt: skip


def verdicts(*scans):
    return classify_study(stacks_of(*scans))


def verdict(parameters, **options):
    (found,) = verdicts(Scan(parameters, shape=(6, 6, 20), **options))
    return found


WANTED = [
    ('T1w', protocol('t1_mprage_sag_p2_iso', ['GR', 'IR'], ['SP', 'MP'], 2300, 2.98, 900, 9)),
    ('T1w', protocol('Sag 3D BRAVO', 'GR', ['SS', 'SP', 'SK'], 8.2, 3.2, 450, 12)),
    ('T1w', protocol('sT1W_3D_TFE', 'GR', 'MP', 7.4, 3.4, None, 8)),
    ('T1w', protocol('AX T1 SE', 'SE', 'NONE', 550, 12)),
    ('T1w', protocol('T1 FLAIR', ['SE', 'IR'], 'SK', 2000, 20, 860, 111)),
    ('T1w', protocol('', 'SE', 'SK', 600, 10)),
    ('T1w', protocol('t1_space_sag', 'SE', ['SK', 'SP'], 700, 22, None, 120)),
    ('T1w', protocol('AX T1 PRE', 'SE', 'SK', 600, 10)),
    ('T1w', protocol('AX T1 W/O', 'SE', 'SK', 600, 10)),
    ('ce-T1w', protocol('t1_mprage_sag+C', ['GR', 'IR'], ['SP', 'MP'], 2300, 2.98, 900, 9)),
    ('ce-T1w', protocol('AX T1 POST GD', 'SE', 'SK', 600, 10)),
    ('ce-T1w', protocol('T1W_SE_GD', 'SE', 'SK', 600, 10)),
    ('ce-T1w', protocol('t1_se_tra', 'SE', 'SK', 600, 10, ContrastBolusAgent='Gadovist')),
    ('ce-T1w', protocol('AX T1 C+', 'SE', 'SK', 600, 10)),
    ('T1w', protocol('t1_se_tra', 'SE', 'SK', 600, 10, ContrastBolusAgent='NONE')),
    ('T2w', protocol('t2_tse_tra_512', 'SE', ['SK', 'SP'], 6000, 100)),
    ('T2w', protocol('AX T2 FRFSE', 'SE', 'SK', 4500, 102)),
    ('T2w', protocol('t2_space_sag', 'SE', ['SK', 'SP'], 3200, 408, None, 120)),
    ('T2w', protocol('T2 PROPELLER', 'RM', 'NONE', 4000, 90)),
    ('FLAIR', protocol('t2_tirm_tra_dark-fluid', ['SE', 'IR'], ['SK', 'SP'], 9000, 81, 2500)),
    ('FLAIR', protocol('Sag CUBE T2FLAIR', ['SE', 'IR'], 'SK', 6000, 120, 1850)),
    ('FLAIR', protocol('3D_Brain_VIEW_FLAIR', ['SE', 'IR'], 'SK', 4800, 340, 1660)),
    ('FLAIR', protocol('t2_space_dark-fluid_sag', ['SE', 'IR'], 'SK', 5000, 390, 1800)),
    ('FLAIR', protocol('AX FLAIR', None, None, None, None)),
    ('T1w', protocol('MPRAGE', None, None, None, None)),
]  # fmt: skip


@pytest.mark.parametrize(('kind', 'parameters'), WANTED)
def test_kinds(kind, parameters):
    found = verdict(parameters)
    assert found.kind == kind, found.reason
    assert found.confidence >= LIMIT


ASIDE = [
    ('localiser', protocol('localizer', 'GR', 'SP', 8.6, 4.0, None, 20)),
    ('localiser', protocol('AAHead_Scout', 'GR', 'SP', 3.2, 1.4, None, 8)),
    ('localiser', protocol('3-plane loc', 'GR', 'SP', 8.6, 4.0, None, 20)),
    ('derived', protocol('T1 MPR cor', 'SE', 'SK', 600, 10)),
    ('derived', protocol('t1', 'SE', 'SK', 600, 10, ImageType=['DERIVED', 'SECONDARY', 'MPR'])),
    ('derived', protocol('ADC', 'EP', 'SK', 6000, 80)),
    ('phase', protocol('t1', 'SE', 'SK', 600, 10, ImageType=['ORIGINAL', 'PRIMARY', 'P', 'ND'])),
    ('echo planar', protocol('ep2d_diff_3scan', 'EP', ['SK', 'SP'], 6000, 80)),
    ('diffusion', protocol('DWI b1000', 'SE', 'SK', 6000, 80, DiffusionBValue=1000.0)),
    ('susceptibility', protocol('t2_fl2d_tra_hemo', 'GR', 'SP', 620, 20, None, 20)),
    ('T2*', protocol('GRE', 'GR', 'SP', 620, 20, None, 20)),
    ('angiography', protocol('TOF_3D_multi-slab', 'GR', 'SP', 22, 3.7, None, 18)),
    ('susceptibility', protocol('SWI_Images', 'GR', 'SP', 28, 8.0, None, 15)),
    ('proton density', protocol('PD TSE', 'SE', 'SK', 3000, 12)),
    ('inversion recovery', protocol('STIR', ['SE', 'IR'], 'SK', 4000, 60, 150)),
    ('part of the body', protocol('T2 TSE SAG KNEE', 'SE', 'SK', 4000, 80)),
    ('part of the body', protocol('T1 TSE', 'SE', 'SK', 600, 10, BodyPartExamined='KNEE')),
    ('part of the body', protocol('T2 C-SPINE', 'SE', 'SK', 4000, 100)),
    ('named like', protocol('AX FLAIR', 'SE', 'SK', 600, 10)),
    ('burned', protocol('t1', 'SE', 'SK', 600, 10, BurnedInAnnotation='YES')),
    ('modality', protocol('PET', None, None, None, None, Modality='PT')),
    ('MP2RAGE', protocol('t1_mp2rage_UNI', ['GR', 'IR'], 'MP', 5000, 2.98, 700, 4)),
    ('steady state', protocol('CISS', 'GR', 'SS', 5.6, 2.5, None, 50)),
    ('neither', protocol('brain', None, None, None, None)),
]  # fmt: skip


@pytest.mark.parametrize(('reason', 'parameters'), ASIDE)
def test_what_is_set_aside_and_why(reason, parameters):
    found = verdict(parameters)
    assert not found.kind, found
    assert reason in found.reason


def test_few_slices_are_a_scout():
    (found,) = verdicts(Scan(T2, shape=(6, 6, 5)))
    assert found.reason == 'only 5 slices'


def test_agreement_and_doubt_show_in_the_confidence():
    said = [
        protocol('AX T2', 'SE', 'SK', 5000, 100),
        protocol('series', 'SE', 'SK', 5000, 100),
        protocol('AX T2', None, None, None, None),
        protocol('AX T1', 'SE', 'SK', 5000, 100),
    ]
    sure = [verdict(parameters).confidence for parameters in said]
    assert sure == sorted(sure, reverse=True)
    assert len(set(sure)) == 4


def test_bolus_after_the_series():
    late = {'ContrastBolusAgent': 'Dotarem', 'ContrastBolusStartTime': '083000'}
    found = verdict(protocol('t1_se_tra', 'SE', 'SK', 600, 10, **late))
    assert found.kind == 'T1w'
    assert 'before the contrast agent' in found.reason


DYNAMIC = {'times_s': tuple(5.0 * n for n in range(6))}


def test_dynamic_series_and_what_follows_it():
    study = Study()
    before, dynamic, after = (
        Scan(parameters, study, number, shape=(6, 6, 12), **options)
        for number, parameters, options in (
            (1, MPRAGE, {}), (5, {**SPGR, 'SeriesDescription': 'DCE'}, DYNAMIC), (9, MPRAGE, {}),
        )
    )  # fmt: skip
    found = verdicts(before, dynamic, after)
    assert [one.kind for one in found] == ['T1w', 'DCE', 'ce-T1w']
    assert 'after the dynamic series' in found[2].reason


def test_susceptibility_perfusion_is_no_dce():
    echo_planar = protocol('ep2d_perf', 'EP', 'SK', 1500, 30)
    found = verdict(echo_planar, **DYNAMIC)
    assert not found.kind


def test_flip_angles_make_a_t1_measurement():
    study = Study()
    scans = [
        Scan({**SPGR, 'FlipAngle': flip, 'SeriesDescription': f'T1 map FA{flip:g}'}, study, n)
        for n, flip in enumerate((2.0, 8.0, 15.0), start=1)
    ]
    assert [one.kind for one in verdicts(*scans)] == ['VFA'] * 3


def test_two_equal_gradient_echoes_are_no_t1_measurement():
    study = Study()
    scans = [Scan(SPGR, study, number) for number in (1, 2)]
    assert [one.kind for one in verdicts(*scans)] == ['T1w', 'T1w']


def head_ct(**changes):
    return Scan(HEAD_CT, shape=(6, 6, 20), changes=changes)


CTS = [
    ('', {'SeriesDescription': 'Topogram', 'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER']},
     'localiser'),
    ('', {'ContrastBolusAgent': 'Iomeprol'}, 'contrast agent'),
    ('', {'SeriesDescription': 'CTA Head 0.75'}, 'angiography'),
    ('', {'BodyPartExamined': 'CHEST', 'SeriesDescription': 'Thorax'}, 'part of the body'),
    ('', {'BodyPartExamined': None, 'SeriesDescription': '5/5mm'}, 'nothing says'),
    ('', {'ImageType': ['DERIVED', 'SECONDARY', 'REFORMATTED']}, 'derived'),
    ('CT', {'BodyPartExamined': None, 'SeriesDescription': 'NCCT Brain'}, 'by its name'),
    ('CT', {}, 'head CT'),
    ('CT', {'ConvolutionKernel': 'BONE'}, 'bone kernel'),
]  # fmt: skip


@pytest.mark.parametrize(('kind', 'changes', 'reason'), CTS)
def test_ct(kind, changes, reason):
    (found,) = verdicts(head_ct(**changes))
    assert found.kind == kind
    assert reason in found.reason


@pytest.mark.parametrize('bone', ['H70s', 'BONEPLUS', 'Hr64', 'FC81', 'H60h'])
@pytest.mark.parametrize('soft', ['H30s', 'STANDARD', 'Hr40', 'FC26', 'UB'])
def test_soft_kernel_is_taken_of_two(bone, soft):
    study = Study()
    scans = [
        Scan(HEAD_CT, study, number, (6, 6, 20), uids=[generate_uid()],
             changes={'ConvolutionKernel': kernel})
        for number, kernel in ((1, bone), (2, soft))
    ]  # fmt: skip
    found = verdicts(*scans)
    assert [one.kind for one in found] == ['', 'CT']


def test_flair_protocol_of_the_scanner():
    assert verdict(FLAIR).kind == 'FLAIR'
