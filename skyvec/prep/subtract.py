"""Image subtraction: what is new in an image, and how sure one may be of it.

Two ways from the same pair. *Proper subtraction* (ZOGY) is a closed form in Fourier space that
needs both point-spread functions and leaves white noise; its score is the most powerful test for a
new point source there is, where background noise rules. The *Alard-Lupton* kernel needs no
point-spread function: it is fitted, and may vary over the frame. Images are aligned, of one shape,
background-subtracted, NaN where nothing was measured; x runs along a row.

References:
    Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27; Alard & Lupton 1998, ApJ 503, 325; Alard 2000,
    A&AS 144, 363.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]
Float = NDArray[np.float64]

LEAST_SEEN = 0.75
"""A score is NaN where less than this share of its weight lies on measured pixels."""

GAUSSIANS = ((0.7, 6), (1.5, 4), (3.0, 2))
"""Width [px] of each Gaussian of an Alard-Lupton kernel and the degree of its polynomial."""


@dataclass(frozen=True)
class Difference:
    """What a subtraction found.

    Args:
        difference: New minus what the reference makes expect, NaN where either was not measured.
        score: Signal to noise of a new point source at each pixel: of unit variance where nothing
            is new. NaN where too little was measured.
        flux: Its flux if there is one [units of the new image].
        flux_err: One sigma of it.
        psf: Point-spread function of ``difference``, sum 1, of the shape of the new image's.
    """

    difference: Float
    score: Float
    flux: Float
    flux_err: Float
    psf: Float


def zogy(
    new: Image,
    reference: Image,
    psf_new: Image,
    psf_reference: Image,
    *,
    noise_new: float,
    noise_reference: float,
    scale_new: float = 1.0,
    scale_reference: float = 1.0,
    variance_new: Image | None = None,
    variance_reference: Image | None = None,
    astrometry: tuple[float, float] = (0.0, 0.0),
) -> Difference:
    """Subtract properly and score with the matched filter.

    D^ = (F_r P_r^ N^ - F_n P_n^ R^) / sqrt(s_n^2 F_r^2 |P_r^|^2 + s_r^2 F_n^2 |P_n^|^2)
    S^ = (F_n F_r^2 P_n^* |P_r^|^2 N^ - F_r F_n^2 P_r^* |P_n^|^2 R^) / (the same, squared)
    score = S / sqrt(V_n * k_n^2 + V_r * k_r^2 + V_ast)

    Args:
        new: Background-subtracted, shape (y, x); NaN where not measured.
        reference: Aligned to it, the same shape.
        psf_new: Odd sides, source in the middle pixel; its sum is taken for 1.
        psf_reference: As ``psf_new``.
        noise_new: One sigma of the new image's background, > 0.
        noise_reference: One sigma of the reference's background, > 0.
        scale_new: F_n, counts that a source of flux 1 has in the new image.
        scale_reference: F_r.
        variance_new: Variance of each pixel (background, source and read-out); that of the
            background everywhere if not given.
        variance_reference: The same of the reference.
        astrometry: rms of the registration along x and y [px]; residuals of bright stars are
            weighed down accordingly.

    Returns:
        ``difference`` [flux of scale 1] with white noise of
        sqrt((s_n F_r)^2 + (s_r F_n)^2) / (F_n F_r), and score, flux and its error.

    Raises:
        ValueError: Shapes differ, a noise is not positive or a psf has an even side.

    References:
        Zackay, Ofek & Gal-Yam 2016, equations 13-16, 25-33.
    """
    _check_pair(new, reference)
    for name, value in (("noise_new", noise_new), ("noise_reference", noise_reference)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, not {value}; measure it with background()")
    border = max(*_check_psf(psf_new), *_check_psf(psf_reference))
    seen = np.isfinite(new) & np.isfinite(reference)
    shape = _padded_shape(new.shape, border)

    n = fft.rfft2(_filled(new, seen, border, shape))
    r = fft.rfft2(_filled(reference, seen, border, shape))
    p_n, p_r = _transform(psf_new, shape), _transform(psf_reference, shape)
    power_n, power_r = np.abs(p_n) ** 2, np.abs(p_r) ** 2
    f_n, f_r = scale_new, scale_reference
    both = (noise_new * f_r) ** 2 * power_r + (noise_reference * f_n) ** 2 * power_n
    # where neither image carries anything, nothing is divided by nothing
    both = np.maximum(both, 1e-14 * both.max())
    root = np.sqrt(both)

    zero = f_r * f_n / np.hypot(noise_new * f_r, noise_reference * f_n)
    d = (f_r * p_r * n - f_n * p_n * r) / root
    difference = _inverse(d, shape, border, new.shape)
    p_d = f_r * f_n * p_r * p_n / (zero * root)
    k_n = f_n * f_r**2 * np.conj(p_n) * power_r / both
    k_r = f_r * f_n**2 * np.conj(p_r) * power_n / both
    s_n, s_r = k_n * n, k_r * r
    s = _inverse(s_n - s_r, shape, border, new.shape)
    doubled = _doubled(shape)
    total = float(np.sum((f_n * f_r) ** 2 * power_n * power_r / both * doubled))
    unit = total / (shape[0] * shape[1])  # S of a source of flux 1, and its variance in background

    kernels = _inverse(k_n, shape) ** 2, _inverse(k_r, shape) ** 2
    squares = fft.rfft2(kernels[0]), fft.rfft2(kernels[1])
    flat = {"new": noise_new**2, "reference": noise_reference**2}
    variance = np.zeros(new.shape)
    given = {"new": variance_new, "reference": variance_reference}
    for (name, level), square in zip(flat.items(), squares):
        pixel = given[name]
        if pixel is None:
            variance += level * float(kernels[0 if name == "new" else 1].sum())
            continue
        if pixel.shape != new.shape:
            raise ValueError(f"variance_{name} has the shape {pixel.shape}, not {new.shape}")
        usable = np.isfinite(pixel) & seen
        spread = _filled(np.where(usable, pixel, level) - level, usable, border, shape)
        variance += level * float(kernels[0 if name == "new" else 1].sum())
        variance += _inverse(fft.rfft2(spread) * square, shape, border, new.shape)
    for axis, rms in zip((1, 0), astrometry):
        if rms:
            for part in (s_n, s_r):
                slope = np.gradient(_inverse(part, shape, border, new.shape), axis=axis)
                variance += rms**2 * slope**2
    variance = np.maximum(variance, 1e-12 * unit)

    share = _share_seen(seen, squares[0], shape, border)
    s[share < LEAST_SEEN] = np.nan
    difference = np.where(seen, difference / zero, np.nan)
    psf = _cut_psf(_inverse(p_d, shape), psf_new.shape)
    # of a variance that changes from pixel to pixel only the score takes account
    return Difference(difference, s / np.sqrt(variance), s / unit, np.sqrt(variance) / unit, psf)


@dataclass(frozen=True)
class Kernel:
    """A fitted Alard-Lupton kernel: K(u, v; x, y) = sum_ij a_ij x^p y^q B_i(u, v).

    Args:
        basis: B_i, shape (k, 2 h + 1, 2 h + 1); the first sums to 1, the others to 0.
        coefficients: a, shape (k, terms), or zeros beyond the first term for basis images that
            do not vary.
        degree: Of the polynomial over the frame.
        background: Coefficients of the difference of the backgrounds.
        background_degree: Of its polynomial.
        shape: (y, x) of the frame.
        chi2: Mean squared residual of the fitted pixels in units of their variance.
    """

    basis: Float
    coefficients: Float
    degree: int
    background: Float
    background_degree: int
    shape: tuple[int, int]
    chi2: float

    def at(self, x: float, y: float) -> Float:
        """The kernel at a place, shape (2 h + 1, 2 h + 1); its sum is the ratio of fluxes."""
        terms = _powers(np.array([x]), np.array([y]), self.shape, self.degree)[:, 0]
        return np.asarray(np.tensordot(self.coefficients @ terms, self.basis, axes=1))

    def apply(self, reference: Image) -> Float:
        """Convolve a reference and add the background: what the new image should look like."""
        half = self.basis.shape[1] // 2
        height, width = self.shape
        y, x = np.mgrid[:height, :width].astype(np.float64)
        terms = _powers(x, y, self.shape, self.degree)
        convolved = _convolve_all(reference, self.basis, half)
        expected = np.zeros(self.shape)
        for image, row in zip(convolved, self.coefficients):
            expected += image * np.tensordot(row, terms, axes=1)
        shapes = _powers(x, y, self.shape, self.background_degree)
        return np.asarray(expected + np.tensordot(self.background, shapes, axes=1))


def fit_kernel(
    new: Image,
    reference: Image,
    *,
    noise: float,
    stars: NDArray[np.integer] | None = None,
    variance: Image | None = None,
    gaussians: Sequence[tuple[float, int]] = GAUSSIANS,
    half: int = 8,
    degree: int = 0,
    background_degree: int = 0,
    reach: int = 12,
    rounds: int = 3,
) -> Kernel:
    """Fit the kernel that makes the reference look like the new image.

    Minimises sum (N - K * R - b)^2 / V over the pixels around stars (or over all), with the basis
    exp(-(u^2 + v^2) / 2 s^2) u^i v^j, i + j <= degree of that Gaussian. All but the first
    basis kernel sum to 0, so that the ratio of fluxes is one number a place.

    Args:
        new: shape (y, x), NaN where not measured.
        reference: The same shape; sharper than the new image, or the kernel must sharpen.
        noise: One sigma of the new image's background, > 0.
        stars: (x, y) of the stars to fit, shape (n, 2); all pixels if not given.
        variance: Of each pixel of the new image; the background's if not given.
        gaussians: Width [px] and degree of each Gaussian.
        half: The kernel is 2 half + 1 pixels wide.
        degree: Of the kernel's polynomial over the frame; 0 for one kernel everywhere.
        background_degree: Of that of the background.
        reach: Pixels around each star that are fitted.
        rounds: Fits; before each but the first, stars whose residuals are far above the others'
            are left out.

    Raises:
        ValueError: Shapes differ, or fewer pixels than unknowns are there to fit.
    """
    _check_pair(new, reference)
    if not noise > 0:
        raise ValueError(f"noise must be > 0, not {noise}; measure it with background()")
    shape = (int(new.shape[0]), int(new.shape[1]))
    basis = _kernel_basis(gaussians, half)
    seen = np.isfinite(new) & (_grown(~np.isfinite(reference), half) == 0)
    seen[:half], seen[-half:], seen[:, :half], seen[:, -half:] = False, False, False, False
    group = _groups(shape, stars, reach)
    y, x = np.nonzero(seen & (group >= 0))
    member = group[y, x]
    terms = _powers(x.astype(np.float64), y.astype(np.float64), shape, degree)
    shapes = _powers(x.astype(np.float64), y.astype(np.float64), shape, background_degree)
    n_unknown = len(basis) * len(terms) + len(shapes)
    if len(x) < 2 * n_unknown:
        raise ValueError(
            f"{len(x)} pixels cannot tell {n_unknown} unknowns of the kernel; give more stars, or "
            "lower the degrees"
        )
    convolved = _convolve_all(reference, basis, half)[:, y, x]
    design = np.concatenate(
        [(convolved[:, None] * terms).reshape(len(basis) * len(terms), -1), shapes]
    ).T
    value = np.asarray(new[y, x], np.float64)
    sigma = np.full(len(x), noise) if variance is None else np.sqrt(variance[y, x])
    used = np.isfinite(sigma) & (sigma > 0)
    solution, residual = np.zeros(n_unknown), np.zeros(len(x))
    for _ in range(max(rounds, 1)):
        a = design[used] / sigma[used, None]
        b = value[used] / sigma[used]
        # normal equations, scaled so that their condition is that of the problem
        length = np.maximum(np.linalg.norm(a, axis=0), 1e-300)
        a /= length
        solution = np.linalg.lstsq(a.T @ a, a.T @ b, rcond=1e-12)[0] / length
        residual = (value - design @ solution) / sigma
        if stars is None:
            new_used = np.isfinite(residual) & (np.abs(residual) < 6)
        else:
            new_used = np.isfinite(residual) & _good_groups(residual, member, len(stars))[member]
        if new_used.sum() < 2 * n_unknown or (new_used == used).all():
            break
        used = new_used
    cut_off = len(basis) * len(terms)
    return Kernel(
        basis,
        solution[:cut_off].reshape(len(basis), len(terms)),
        degree,
        solution[cut_off:],
        background_degree,
        shape,
        float(np.mean(residual[used] ** 2)),
    )


def alard_lupton(
    new: Image,
    reference: Image,
    psf_new: Image,
    kernel: Kernel,
    *,
    noise_new: float,
    noise_reference: float = 0.0,
    variance_new: Image | None = None,
) -> Difference:
    """Subtract the convolved reference and score with the new image's point-spread function.

    D = N - K * R - b; flux = sum P D / V / sum P^2 / V around each pixel; the score is the flux
    over its error. The noise that the reference brings along is correlated by the kernel; of it
    the score takes account by its exact variance in the middle of the frame.

    Args:
        new: shape (y, x).
        reference: The same shape.
        psf_new: Odd sides, source in the middle pixel.
        kernel: From ``fit_kernel``.
        noise_new: One sigma of the new image's background, > 0.
        noise_reference: One sigma of the reference's background.
        variance_new: Of each pixel of the new image; the background's if not given.
    """
    _check_pair(new, reference)
    _check_psf(psf_new)
    psf = np.asarray(psf_new, np.float64) / np.sum(psf_new)
    seen = np.isfinite(new) & (_grown(~np.isfinite(reference), kernel.basis.shape[1] // 2) == 0)
    difference = np.where(
        seen, np.nan_to_num(new) - kernel.apply(np.nan_to_num(reference)), np.nan
    )
    middle = kernel.at(new.shape[1] / 2, new.shape[0] / 2)
    variance = np.full(new.shape, noise_new**2) if variance_new is None else variance_new
    variance = variance + noise_reference**2 * float(np.sum(middle**2))
    score, flux, error = matched_filter(difference, psf, variance)
    if noise_reference > 0:
        # var(sum P D) = s_n^2 sum P^2 + s_r^2 sum (P x K)^2, x a correlation
        both = _correlate_full(psf, middle)
        white = (noise_new**2 + noise_reference**2 * np.sum(middle**2)) * np.sum(psf**2)
        exact = noise_new**2 * np.sum(psf**2) + noise_reference**2 * np.sum(both**2)
        factor = float(np.sqrt(exact / white))
        score, error = score / factor, error * factor
    return Difference(difference, score, flux, error, psf)


def matched_filter(
    difference: Image, psf: Image, variance: Image | float
) -> tuple[Float, Float, Float]:
    """Score every pixel for a point source in an image with independent noise.

    flux = (D / V) x P / (1 / V) x P^2 with errors 1 / sqrt((1 / V) x P^2), x a correlation.

    Returns:
        Score, flux and its error; NaN where less than LEAST_SEEN of the filter's weight lies on
        measured pixels.
    """
    border = max(_check_psf(psf))
    seen = np.isfinite(difference) & np.isfinite(np.broadcast_to(variance, difference.shape))
    shape = _padded_shape(difference.shape, border)
    weight = np.where(seen, 1 / np.where(seen, variance, 1.0), 0.0)
    p = _transform(psf, shape)
    own = np.zeros(shape)
    own[: psf.shape[0], : psf.shape[1]] = (psf / np.sum(psf)) ** 2
    square = fft.rfft2(np.roll(own, (-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1)))
    top = _padded(np.where(seen, difference, 0) * weight, border, shape)
    numerator = _inverse(fft.rfft2(top) * np.conj(p), shape, border, difference.shape)
    weights = fft.rfft2(_padded(weight, border, shape)) * np.conj(square)
    information = _inverse(weights, shape, border, difference.shape)
    share = _share_seen(seen, np.conj(square), shape, border)
    known = (information > 1e-300) & (share >= LEAST_SEEN)
    safe = np.where(known, information, 1.0)
    flux = np.where(known, numerator / safe, np.nan)
    error = np.where(known, 1 / np.sqrt(safe), np.nan)
    return flux / error, flux, error


def detect(
    score: Image, *, threshold: float = 5.0, apart: float = 4.0, both_signs: bool = False
) -> NDArray[np.int64]:
    """Find the peaks of a score.

    Args:
        score: shape (y, x), NaN where unknown.
        threshold: Least score of a peak.
        apart: Of peaks closer than this [px] only the highest stays.
        both_signs: Whether to find what has faded, too.

    Returns:
        (x, y) of each, highest first, shape (n, 2).
    """
    height = np.where(np.isfinite(score), np.abs(score) if both_signs else score, -np.inf)
    y, x = np.nonzero(height > threshold)
    padded = np.pad(height, 1, constant_values=-np.inf)
    around = sliding_window_view(padded, (3, 3))[y, x].reshape(len(x), 9)
    peak = height[y, x] >= around.max(axis=1, initial=-np.inf)
    x, y = x[peak], y[peak]
    order = np.argsort(-height[y, x], kind="stable")
    places = np.column_stack([x[order], y[order]]).astype(np.int64)
    if len(places) < 2:
        return places
    kept = np.ones(len(places), bool)
    for i, j in sorted(cKDTree(places).query_pairs(apart)):  # i < j, so i is the higher one
        if kept[i]:
            kept[j] = False
    return places[kept]


def cut_stamps(
    new: Image, reference: Image, difference: Image, places: NDArray[np.integer], side: int = 29
) -> NDArray[np.float32]:
    """Cut the three stamps of each place, NaN beyond the frame.

    Args:
        new: shape (y, x).
        reference: The same shape.
        difference: The same shape.
        places: (x, y), shape (n, 2).
        side: Of a stamp [px], odd.

    Returns:
        shape (n, 3, side, side), in the order of ``schema.STAMP_CHANNELS``.

    Raises:
        ValueError: The side is even.
    """
    if side % 2 == 0:
        raise ValueError(f"a stamp's side must be odd, so that a pixel is its centre, not {side}")
    half = side // 2
    stack = np.stack([new, reference, difference]).astype(np.float32)
    padded = np.pad(stack, ((0, 0), (half, half), (half, half)), constant_values=np.nan)
    windows = sliding_window_view(padded, (side, side), axis=(1, 2))
    return np.moveaxis(windows[:, places[:, 1], places[:, 0]], 0, 1).copy()


# --- Fourier space ----------------------------------------------------------------------------


def _check_pair(new: Image, reference: Image) -> None:
    if new.ndim != 2 or new.shape != reference.shape:
        raise ValueError(
            f"new {new.shape} and reference {reference.shape} must be images of one shape; align "
            "them first"
        )


def _check_psf(psf: Image) -> tuple[int, int]:
    if psf.ndim != 2 or psf.shape[0] % 2 == 0 or psf.shape[1] % 2 == 0:
        raise ValueError(f"a psf must have two odd sides, not {psf.shape}")
    if not (np.isfinite(psf).all() and np.sum(psf) > 0):
        raise ValueError("a psf must be finite and have a positive sum")
    return int(psf.shape[0]), int(psf.shape[1])


def _padded_shape(shape: tuple[int, ...], border: int) -> tuple[int, int]:
    y, x = (fft.next_fast_len(side + 2 * border, real=True) for side in shape)
    return y + y % 2, x + x % 2  # even, so that the spectrum's last column stands alone


def _padded(image: Image, border: int, shape: tuple[int, int]) -> Float:
    height, width = image.shape
    padded = np.zeros(shape)
    padded[border : border + height, border : border + width] = image
    return padded


def _filled(image: Image, seen: Mask, border: int, shape: tuple[int, int]) -> Float:
    return _padded(np.where(seen, image, 0), border, shape)


def _transform(psf: Image, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Spectrum of a point-spread function whose middle pixel is the origin."""
    whole = np.zeros(shape)
    whole[: psf.shape[0], : psf.shape[1]] = np.asarray(psf, np.float64) / np.sum(psf)
    rolled = np.roll(whole, (-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1))
    return np.asarray(fft.rfft2(rolled))


def _inverse(
    spectrum: np.ndarray,
    shape: tuple[int, int],
    border: int = 0,
    inner: tuple[int, ...] | None = None,
) -> Float:
    image = np.asarray(fft.irfft2(spectrum, s=shape))
    if inner is None:
        return image
    return image[border : border + inner[0], border : border + inner[1]].copy()


def _doubled(shape: tuple[int, int]) -> Float:
    """How often each column of a half spectrum counts in the whole."""
    doubled = np.full(shape[1] // 2 + 1, 2.0)
    doubled[0] = doubled[-1] = 1.0
    return doubled


def _share_seen(seen: Mask, square: np.ndarray, shape: tuple[int, int], border: int) -> Float:
    """Share of a squared kernel's weight that lies on measured pixels, beyond the frame too."""
    if seen.all():
        # edges lose up to three quarters in a corner, and are judged all the same
        mask = fft.rfft2(_padded(np.ones(seen.shape), border, shape))
    else:
        mask = fft.rfft2(_padded(seen.astype(np.float64), border, shape))
    total = float(np.real(square[0, 0]))
    return _inverse(mask * square, shape, border, seen.shape) / total


def _cut_psf(image: Float, sides: tuple[int, ...]) -> Float:
    half_y, half_x = sides[0] // 2, sides[1] // 2
    rolled = np.roll(image, (half_y, half_x), (0, 1))
    return rolled[: sides[0], : sides[1]].copy()


# --- the Alard-Lupton basis -------------------------------------------------------------------


def _kernel_basis(gaussians: Sequence[tuple[float, int]], half: int) -> Float:
    grid = np.arange(-half, half + 1, dtype=np.float64)
    made = []
    for sigma, most in gaussians:
        round_one = np.exp(-0.5 * (grid[:, None] ** 2 + grid[None, :] ** 2) / sigma**2)
        for i in range(most + 1):
            for j in range(most + 1 - i):
                # powers of u / s keep all numbers near one
                made.append(
                    round_one * (grid[None, :] / sigma) ** i * (grid[:, None] / sigma) ** j
                )
    basis = np.array(made)
    sums = basis.sum(axis=(1, 2))
    norm = np.sqrt((basis**2).sum(axis=(1, 2)))
    basis[0] /= sums[0]
    for k in range(1, len(basis)):
        basis[k] = basis[k] / norm[k] - basis[0] * sums[k] / norm[k]
    return basis


def _powers(x: Float, y: Float, shape: tuple[int, int], degree: int) -> Float:
    """Monomials of places scaled to [-1, 1], shape (terms, ...)."""
    u = 2 * x / max(shape[1] - 1, 1) - 1
    v = 2 * y / max(shape[0] - 1, 1) - 1
    return np.array([u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)])


def _convolve_all(reference: Image, basis: Float, half: int) -> Float:
    shape = _padded_shape(reference.shape, half + 1)
    r = fft.rfft2(_padded(np.nan_to_num(reference), half + 1, shape))
    made = np.empty((len(basis), *reference.shape))
    for k, kernel in enumerate(basis):
        whole = np.zeros(shape)
        whole[: kernel.shape[0], : kernel.shape[1]] = kernel
        spectrum = fft.rfft2(np.roll(whole, (-half, -half), (0, 1)))
        made[k] = _inverse(r * spectrum, shape, half + 1, reference.shape)
    return made


def _correlate_full(psf: Float, kernel: Float) -> Float:
    shape = (psf.shape[0] + kernel.shape[0] - 1, psf.shape[1] + kernel.shape[1] - 1)
    product = fft.rfft2(psf, shape) * fft.rfft2(kernel[::-1, ::-1], shape)
    return np.asarray(fft.irfft2(product, s=shape))


def _grown(mask: Mask, half: int) -> NDArray[np.int64]:
    """How many marked pixels lie in the square of 2 half + 1 around each."""
    sums = np.pad(mask, half).astype(np.int64).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    size = 2 * half + 1
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]


def _groups(
    shape: tuple[int, int], stars: NDArray[np.integer] | None, reach: int
) -> NDArray[np.int64]:
    """Row of the star each pixel belongs to, -1 for none; all 0 without stars."""
    if stars is None:
        return np.zeros(shape, np.int64)
    group = np.full(shape, -1, np.int64)
    for i, (x, y) in enumerate(stars.tolist()):
        group[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = i
    return group


def _good_groups(residual: Float, member: NDArray[np.int64], n: int) -> Mask:
    """Stars whose mean squared residual is not far above the others'."""
    finite = np.isfinite(residual)
    total = np.bincount(member[finite], residual[finite] ** 2, minlength=n)
    count = np.bincount(member[finite], minlength=n)
    mean = np.divide(total, count, out=np.full(n, np.inf), where=count > 0)
    known = mean[np.isfinite(mean)]
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle))
    return np.asarray(mean <= middle + 4 * spread + 1e-9)
