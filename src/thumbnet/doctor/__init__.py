"""Faults that spoil numbers before any training: of a data set, and of the machine and its installation."""

from thumbnet.doctor.computer import examine_computer as examine_computer
from thumbnet.doctor.dataset import Diagnosis as Diagnosis
from thumbnet.doctor.dataset import examine_dataset as examine_dataset
from thumbnet.doctor.labels import check_labels as check_labels
from thumbnet.doctor.resuming import check_resuming as check_resuming
