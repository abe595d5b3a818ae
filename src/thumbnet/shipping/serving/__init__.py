"""A page and an address that classify images, for the people and programs of this computer."""

from thumbnet.shipping.serving.endpoints import About as About
from thumbnet.shipping.serving.endpoints import application as application
from thumbnet.shipping.serving.server import serve as serve
